//! ssh_config: tables against the real `ssh -G`, generated files against it, and what only we promise.

mod against_ssh;
pub(crate) mod any_file;
mod calls;
mod cases;
mod generated;
mod oracle;
mod promises;
