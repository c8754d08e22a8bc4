//! The mirror port: trees made equal by rsync's wire protocol, or by a walk over the file port.
//!
//! | File | Holds |
//! | --- | --- |
//! | `filter` | which names are meant: one matcher for both ways and both directions |
//! | `local` | the tree on this side; no link is followed below its root |
//! | `source` | this side read: its list, its files |
//! | `landing` | this side written: what each entry of a list asks for, and what is deleted |
//! | `wire` | rsync's protocol on a channel; the only place that awaits for it |
//! | `walk` | the file port, file by file |
