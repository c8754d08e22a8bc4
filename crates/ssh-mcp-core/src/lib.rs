//! Everything about ssh-mcp that is true without I/O: no socket, clock, task, log or `unsafe` in here.
//!
//! Read it in this order:
//!
//! - words: [`id`], [`owner`], [`target`], [`uri`], [`code`], [`reason`], [`settings`];
//! - shared structures, all checked under every interleaving (`docs/lifecycle.md`, part 6): [`sync`], [`watch`],
//!   [`lifecycle`], [`history`], [`cursor`], [`quota`], [`flight`], [`lane`];
//! - what the product holds: [`kind`] (the private machines), [`registry`] (the entries);
//! - small tools: [`keys`], [`quote`], [`retry`], [`text`], [`activity`];
//! - the outside world, as traits: [`port`].

pub mod activity;
pub mod code;
pub mod cursor;
pub mod flight;
pub mod history;
pub mod id;
pub mod keys;
pub mod kind;
pub mod lane;
pub mod lifecycle;
pub mod owner;
pub mod port;
pub mod quota;
pub mod quote;
pub mod reason;
pub mod registry;
pub mod retry;
pub mod settings;
pub mod sync;
pub mod target;
pub mod target_names;
pub mod text;
pub mod uri;
pub mod watch;
