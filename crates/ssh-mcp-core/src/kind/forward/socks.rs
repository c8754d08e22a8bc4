//! The server's side of a SOCKS handshake, without I/O: version 5 (RFC 1928, no authentication, CONNECT) and versions 4
//! and 4a.
//!
//! Bytes go in by [`Handshake::on_bytes`]; [`Handshake::next_step`] is asked until it wants more. What a client sends
//! behind its request is its first data ([`Handshake::into_rest`]).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::target::Address;

/// A handshake that goes on.
#[derive(Debug, Default)]
pub struct Handshake {
    held: Vec<u8>,
    stage: Stage,
}

/// ```text
/// Greeting -> Request    a client of version 5 offered to show nothing
/// Greeting -> Over       a request of version 4, or something that is none
/// Request -> Over        a request of version 5, or something that is none
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    #[default]
    Greeting,
    Request,
    Over,
}

/// What a handshake wants next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// More bytes.
    More,
    /// These are sent; it goes on.
    Answer(Vec<u8>),
    /// It is over: the client wants to go there, and is told in its dialect what came of it.
    Wanted(Address, Dialect),
    /// It is over: these are sent, if any, and the connection is closed.
    Refused(Vec<u8>, Unfit),
}

/// Why a request cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The first byte is no version.
    #[error("this is not SOCKS 4 or 5")]
    NotSocks,
    /// It only offers ways to log in that are not served.
    #[error("the client wants to log in, which is not served")]
    Methods,
    /// BIND, UDP or something else.
    #[error("only CONNECT is served")]
    Command,
    /// An address of an unknown form.
    #[error("the form of the address is not known")]
    AddressForm,
    /// A name that is none.
    #[error("the name of the host cannot be used")]
    Name,
    /// A user name without an end.
    #[error("the request is too long")]
    TooLong,
}

/// In which version a client is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// 4 and 4a.
    Four,
    /// 5.
    Five,
}

/// Why a target was not reached, as far as SOCKS tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It may not be gone to.
    Prohibited,
    /// The network is not reached.
    NetworkUnreachable,
    /// The host is not reached, or not known.
    HostUnreachable,
    /// Nobody listens there.
    ConnectionRefused,
    /// Something else.
    Failed,
}

impl Dialect {
    /// The target is reached.
    pub fn granted(self) -> Vec<u8> {
        match self {
            Self::Four => vec![0, 0x5a, 0, 0, 0, 0, 0, 0],
            // From which address the server goes on is not known here, which 0.0.0.0:0 stands for.
            Self::Five => vec![5, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        }
    }

    /// The target is not reached.
    pub fn refused(self, outcome: Outcome) -> Vec<u8> {
        match self {
            // Version 4 knows one word for it.
            Self::Four => vec![0, 0x5b, 0, 0, 0, 0, 0, 0],
            Self::Five => five(match outcome {
                Outcome::Failed => 1,
                Outcome::Prohibited => 2,
                Outcome::NetworkUnreachable => 3,
                Outcome::HostUnreachable => 4,
                Outcome::ConnectionRefused => 5,
            }),
        }
    }
}

impl Handshake {
    /// Takes what a client has sent.
    pub fn on_bytes(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// What is to be done next; once it was `Wanted` or `Refused` it is over.
    pub fn next_step(&mut self) -> Step {
        let parsed = match (self.stage, self.held.first()) {
            (Stage::Over, _) | (_, None) => None,
            (Stage::Greeting, Some(4)) => self.version_four(),
            (Stage::Greeting, Some(5)) => self.greeting(),
            (Stage::Request, Some(5)) => self.version_five(),
            (Stage::Greeting | Stage::Request, Some(_)) => Some(Step::Refused(Vec::new(), Unfit::NotSocks)),
        };
        match parsed {
            None => Step::More,
            Some(step) => {
                self.stage = match step {
                    Step::Answer(_) => Stage::Request,
                    Step::More | Step::Wanted(..) | Step::Refused(..) => Stage::Over,
                };
                step
            }
        }
    }

    /// What the client has sent behind its request.
    pub fn into_rest(self) -> Vec<u8> {
        self.held
    }

    fn greeting(&mut self) -> Option<Step> {
        let count = usize::from(*self.held.get(1)?);
        let methods = self.held.get(2..2 + count)?;
        let offers_none = methods.contains(&0);
        self.held.drain(..2 + count);
        Some(match offers_none {
            true => Step::Answer(vec![5, 0]),
            false => Step::Refused(vec![5, 0xff], Unfit::Methods),
        })
    }

    fn version_five(&mut self) -> Option<Step> {
        let &[_, command, _, form] = self.held.first_chunk()?;
        let (host, behind) = match form {
            1 => {
                let octets: [u8; 4] = *self.held.get(4..)?.first_chunk()?;
                (Some(Ipv4Addr::from(octets).to_string()), 8)
            }
            4 => {
                let octets: [u8; 16] = *self.held.get(4..)?.first_chunk()?;
                (Some(Ipv6Addr::from(octets).to_string()), 20)
            }
            3 => {
                let length = usize::from(*self.held.get(4)?);
                (name(self.held.get(5..5 + length)?), 5 + length)
            }
            // Its length is not known either.
            _ => return Some(Step::Refused(five(8), Unfit::AddressForm)),
        };
        let port = u16::from_be_bytes(*self.held.get(behind..)?.first_chunk()?);
        self.held.drain(..behind + 2);
        Some(match (command, host) {
            (1, Some(host)) => Step::Wanted(Address { host, port }, Dialect::Five),
            (1, None) => Step::Refused(five(1), Unfit::Name),
            _ => Step::Refused(five(7), Unfit::Command),
        })
    }

    fn version_four(&mut self) -> Option<Step> {
        let refused = |why| Some(Step::Refused(Dialect::Four.refused(Outcome::Failed), why));
        let &[_, command, high, low, a, b, c, d] = self.held.first_chunk()?;
        let user_end = match end_of_text(self.held.get(8..)?) {
            Ok(end) => 8 + end?,
            Err(why) => return refused(why),
        };
        let port = u16::from_be_bytes([high, low]);
        // 0.0.0.x stands for a name behind the user's (4a).
        let (host, behind) = match (a, b, c, d) {
            (0, 0, 0, 1..) => {
                let text = self.held.get(user_end..)?;
                let end = match end_of_text(text) {
                    Ok(end) => end?,
                    Err(why) => return refused(why),
                };
                (name(text.get(..end - 1)?), user_end + end)
            }
            _ => (Some(Ipv4Addr::new(a, b, c, d).to_string()), user_end),
        };
        self.held.drain(..behind);
        match (command, host) {
            (1, Some(host)) => Some(Step::Wanted(Address { host, port }, Dialect::Four)),
            (1, None) => refused(Unfit::Name),
            _ => refused(Unfit::Command),
        }
    }
}

/// Where a text that ends with a zero ends, the zero included; `None` as long as that has not come.
fn end_of_text(bytes: &[u8]) -> Result<Option<usize>, Unfit> {
    match bytes.iter().take(LONGEST + 1).position(|byte| *byte == 0) {
        Some(at) => Ok(Some(at + 1)),
        None if bytes.len() > LONGEST => Err(Unfit::TooLong),
        None => Ok(None),
    }
}

fn five(code: u8) -> Vec<u8> {
    vec![5, code, 0, 1, 0, 0, 0, 0, 0, 0]
}

/// A host's name. The server looks it up; here it only must not be able to be anything else.
fn name(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let is_plain = |c: char| !c.is_control() && !c.is_whitespace();
    (!text.is_empty() && text.chars().all(is_plain)).then(|| text.to_owned())
}

/// Bytes of a text of version 4.
const LONGEST: usize = 255;
