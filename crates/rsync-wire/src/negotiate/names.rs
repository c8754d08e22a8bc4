//! The compressors a client may choose, by their names on the wire.

/// A compressor of literal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compressor {
    /// Zstandard, one context for all files.
    Zstd,
    /// LZ4 in independent blocks.
    Lz4,
    /// Deflate, of literal data only.
    Zlibx,
    /// Deflate, with matched data in its window. It has a name here and is not spoken: [`token`](crate::token) refuses it.
    Zlib,
}

impl Compressor {
    /// The name on the wire and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Zlibx => "zlibx",
            Self::Zlib => "zlib",
        }
    }
}
