//! Lines of input: bounded in length, and none of them ends the reading.

use std::io;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// Lines of a stream, each at most so many bytes long.
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    most: usize,
    /// What has been read of a line; kept here, because reading may be dropped half-way.
    line: Vec<u8>,
    /// How long the line is, also where it is too long to be kept.
    seen: usize,
    at_start: bool,
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line that is not blank, without its end.
    Whole(Vec<u8>),
    /// A line of that many bytes, which were skipped.
    TooLong(usize),
    /// Nothing follows.
    End,
}

/// What an editor of another world writes before the text.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R, most: usize) -> Self {
        Self { reader: BufReader::new(reader), most, line: Vec::new(), seen: 0, at_start: true }
    }

    /// The next line that is not blank. Cancel-safe.
    ///
    /// # Errors
    /// Those of the stream.
    pub(super) async fn next(&mut self) -> io::Result<Line> {
        loop {
            let available = self.reader.fill_buf().await?;
            if available.is_empty() {
                // A last line without its end is a line all the same.
                return Ok(self.take().unwrap_or(Line::End));
            }
            let newline = available.iter().position(|byte| *byte == b'\n');
            let part = newline.map_or(available, |at| available.get(..at).unwrap_or_default());
            self.seen += part.len();
            // Room for a carriage return and a byte-order mark, which do not count.
            if self.seen <= self.most + 1 + BYTE_ORDER_MARK.len() {
                self.line.extend_from_slice(part);
            } else {
                self.line = Vec::new();
            }
            let used = part.len() + usize::from(newline.is_some());
            self.reader.consume(used);
            if newline.is_some()
                && let Some(line) = self.take()
            {
                return Ok(line);
            }
        }
    }

    /// The line that has been read, unless it is blank.
    fn take(&mut self) -> Option<Line> {
        let (mut line, seen) = (std::mem::take(&mut self.line), std::mem::take(&mut self.seen));
        if std::mem::take(&mut self.at_start) && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        match line.len() {
            0 if seen > self.most => Some(Line::TooLong(seen)),
            long if long > self.most => Some(Line::TooLong(seen)),
            _ if line.trim_ascii().is_empty() => None,
            _ => Some(Line::Whole(line)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(input: &[u8], most: usize) -> Vec<Line> {
        let mut lines = Lines::new(input, most);
        let mut read = Vec::new();
        loop {
            let line = lines.next().await.unwrap();
            if line == Line::End {
                return read;
            }
            read.push(line);
        }
    }

    fn whole(text: &str) -> Line {
        Line::Whole(text.as_bytes().to_vec())
    }

    #[tokio::test]
    async fn ends_marks_and_blank_lines_are_no_part_of_a_line() {
        let read = read(b"\xEF\xBB\xBFa\r\n\n  \t\r\nb\n\xEF\xBB\xBFc\nlast", 16).await;
        assert_eq!(read, [whole("a"), whole("b"), whole("\u{feff}c"), whole("last")]);
    }

    #[tokio::test]
    async fn a_line_above_the_limit_is_skipped_and_the_next_one_read() {
        let mut input = vec![b'a'; 100_000];
        input.extend_from_slice(b"\nok\n");
        assert_eq!(read(&input, 1024).await, [Line::TooLong(100_000), whole("ok")]);
        // The limit itself is none too many, whatever ends the line.
        assert_eq!(
            read(b"1234\r\n12345\r\n1234\n12345", 4).await,
            [whole("1234"), Line::TooLong(6), whole("1234"), Line::TooLong(5),]
        );
    }

    #[tokio::test]
    async fn what_is_skipped_is_not_kept() {
        let input = vec![b'a'; 1 << 20];
        let mut lines = Lines::new(&input[..], 1024);
        assert_eq!(lines.next().await.unwrap(), Line::TooLong(1 << 20));
        assert!(lines.line.capacity() <= 1024);
    }
}
