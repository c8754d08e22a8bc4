//! One connection of the embedded server: who may log in, and which requests are granted.
//!
//! Requests are granted here, inside russh's callbacks, because a client may send the next one before it has
//! heard the answer to the last. What they ask for is done by the channel's own task (`program.rs`), which gets
//! the same requests through its channel and in the same order.

use std::collections::HashSet;
use std::sync::Arc;

use russh::keys::PublicKey;
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, Error, Pty};
use tokio::task::JoinSet;

use super::{Facts, Login, process, program};

/// The server's side of one connection; its end ends everything the connection started.
pub(super) struct Connection {
    facts: Arc<Facts>,
    /// In the environment of every process of this connection, and of no other process.
    mark: process::Mark,
    programs: JoinSet<()>,
    /// Each task holds one more reference; their number is the number of sessions in use.
    places: Arc<()>,
    /// Channels whose program has been asked for: a second request is refused (RFC 4254 section 6.5).
    started: HashSet<ChannelId>,
    /// The password has been given, and the empty second round of keyboard-interactive is out.
    questioned: bool,
}

impl Connection {
    /// A connection that has not logged in.
    pub(super) fn new(facts: Arc<Facts>) -> Self {
        Self {
            facts,
            mark: process::Mark::new(),
            programs: JoinSet::new(),
            places: Arc::new(()),
            started: HashSet::new(),
            questioned: false,
        }
    }

    fn admits(&self, user: &str, login: Login) -> bool {
        let config = &self.facts.config;
        config.logins.contains(&login) && config.users.iter().any(|known| known == user)
    }

    fn admits_key(&self, user: &str, key: &PublicKey) -> Auth {
        let known = self.facts.client_key.public_key();
        self.verdict(self.admits(user, Login::PublicKey) && key.key_data() == known.key_data())
    }

    /// As sshd: a failed method may be tried again (by itself russh would strike it off the list).
    fn verdict(&self, is_admitted: bool) -> Auth {
        let methods = super::methods(&self.facts.config);
        if is_admitted {
            Auth::Accept
        } else {
            Auth::Reject { proceed_with_methods: Some(methods), partial_success: false }
        }
    }

    /// Grants the request if it is the first on its channel to start a program.
    fn start(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Error> {
        if self.started.insert(channel) {
            session.channel_success(channel)
        } else {
            session.channel_failure(channel)
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.programs.abort_all();
        self.mark.kill_bearers();
    }
}

impl Handler for Connection {
    type Error = Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Error> {
        Ok(self.verdict(self.admits(user, Login::Password) && password == self.facts.password))
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Error> {
        Ok(self.admits_key(user, offer.public_key))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Error> {
        Ok(self.admits_key(user, key.public_key))
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Error> {
        let Some(mut response) = response else {
            self.questioned = false;
            return Ok(question(vec![("Password: ".into(), false)]));
        };
        if self.questioned {
            return Ok(self.verdict(response.next().is_none()));
        }
        let answer = response.next();
        let is_right = answer.is_some_and(|answer| answer == self.facts.password.as_bytes());
        if !self.admits(user, Login::KeyboardInteractive) || !is_right {
            return Ok(self.verdict(false));
        }
        self.questioned = true;
        Ok(question(Vec::new()))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Error> {
        while self.programs.try_join_next().is_some() {}
        if Arc::strong_count(&self.places) > self.facts.config.max_sessions {
            // The reason sshd gives, too.
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        }
        let place = Arc::clone(&self.places);
        let (facts, mark, handle) = (Arc::clone(&self.facts), self.mark.clone(), session.handle());
        reply.accept().await;
        self.programs.spawn(async move {
            program::serve(channel, &handle, &facts, &mark).await;
            drop(place);
        });
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), Error> {
        self.started.remove(&channel);
        Ok(())
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        _value: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_success(channel)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_success(channel)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _command: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        self.start(channel, session)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Error> {
        self.start(channel, session)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(channel)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(channel)
    }
}

fn question(prompts: Vec<(std::borrow::Cow<'static, str>, bool)>) -> Auth {
    Auth::Partial { name: "".into(), instructions: "".into(), prompts: prompts.into() }
}
