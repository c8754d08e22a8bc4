//! The private machines of each kind: what ends a command, how it is ended, what may come behind an exit, what a shell's
//! exit means, what is looked for in its output.
//!
//! Pure: time comes in as `now` (since the engine's start), actions and deadlines go out.

pub mod command;
pub mod forward;
pub mod input;
pub mod login_shell;
pub mod needles;
pub mod pid_line;
pub mod rsync;
pub mod serial;
pub mod shell;
pub mod tail;
pub mod transfer;
