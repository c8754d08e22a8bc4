//! The crate through its outer face, and against the real OpenSSH where it is installed.

// `cfg(test)` on each module tells clippy that helpers may unwrap as tests do.
#[cfg(test)]
mod any_file;
#[cfg(test)]
mod cases;
#[cfg(test)]
mod config;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod learning;
#[cfg(test)]
mod openssh;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod verdicts;
