//! Servers that ask: lists of questions, rounds without a question, rounds without an end. OpenSSH with PAM asks one question
//! a round, so these are asked by a server of russh that follows a script.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::server::{Auth, Config, Handler, Response, run_stream};
use russh::{MethodKind, MethodSet};
use ssh_mcp_core::port::resolve::Defaults;
use ssh_mcp_core::port::ssh::{ConnectError, ConnectRequest, Connector};
use ssh_mcp_core::target::{Address, Credentials, Secret, Target};
use ssh_mcp_ssh::RusshConnector;
use ssh_mcp_testkit::host::defaults;
use tokio::net::TcpListener;

const SECRET: &str = "correct horse";

/// A prompt, and whether what is typed may be seen.
type Question = (&'static str, bool);

/// What the server asks, and what it is told.
struct Script {
    rounds: Vec<Vec<Question>>,
    /// After the last round it begins anew instead of deciding.
    is_endless: bool,
    answers: Arc<Mutex<Vec<Vec<String>>>>,
    at: usize,
}

impl Script {
    fn ask(&mut self) -> Auth {
        if self.at == self.rounds.len() && self.is_endless {
            self.at = 0;
        }
        let Some(round) = self.rounds.get(self.at) else {
            return match self.answers.lock().unwrap().iter().flatten().all(|answer| answer == SECRET) {
                true => Auth::Accept,
                false => {
                    Auth::Reject { proceed_with_methods: Some(only_questions()), partial_success: false }
                }
            };
        };
        self.at += 1;
        let prompts: Vec<(Cow<'static, str>, bool)> =
            round.iter().map(|(prompt, echo)| (Cow::from(*prompt), *echo)).collect();
        Auth::Partial { name: "".into(), instructions: "".into(), prompts: prompts.into() }
    }
}

impl Handler for Script {
    type Error = russh::Error;

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        match response {
            None => self.at = 0,
            Some(response) => {
                let said = response.map(|answer| String::from_utf8_lossy(&answer).into_owned()).collect();
                self.answers.lock().unwrap().push(said);
            }
        }
        Ok(self.ask())
    }
}

fn only_questions() -> MethodSet {
    let mut methods = MethodSet::empty();
    methods.push(MethodKind::KeyboardInteractive);
    methods
}

/// Logs in at a server with this script; how that ends, and what the server was told.
async fn log_in(rounds: &[&[Question]], is_endless: bool) -> (Result<(), ConnectError>, Vec<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers = Arc::<Mutex<Vec<Vec<String>>>>::default();
    let script = Script {
        rounds: rounds.iter().map(|round| round.to_vec()).collect(),
        is_endless,
        answers: Arc::clone(&answers),
        at: 0,
    };
    let config = Arc::new(Config {
        keys: vec![PrivateKey::from(Ed25519Keypair::from_seed(&[1; 32]))],
        methods: only_questions(),
        auth_rejection_time: Duration::ZERO,
        ..Config::default()
    });
    let folder = tempfile::tempdir().unwrap();
    let target = Target { address: Address { host: "127.0.0.1".to_owned(), port }, username: "u".to_owned() };
    let credentials =
        Credentials { password: Some(Secret::new(SECRET.to_owned())), ..Credentials::default() };
    let defaults = Defaults { known_hosts: folder.path().join("known_hosts"), ..defaults() };
    let hop = defaults.hop(target, credentials);
    let request =
        ConnectRequest { via: Vec::new(), hop, timeout: Duration::from_secs(20), accepted: Vec::new() };
    let connector = RusshConnector::new().with_global_known_hosts(Vec::new());
    let serving = async {
        let (socket, _) = listener.accept().await.unwrap();
        // Ends with the connection, however that ends.
        if let Ok(session) = run_stream(config, socket, script).await {
            let _ = session.await;
        }
    };
    let connecting = async { connector.connect(&request).await.map(|connected| drop(connected.link)) };
    let (connected, ()) = tokio::join!(connecting, serving);
    let answers = answers.lock().unwrap().clone();
    (connected, answers)
}

#[tokio::test]
async fn every_hidden_prompt_for_the_password_gets_it() {
    let rounds: &[&[Question]] =
        &[&[("Password: ", false), ("LDAP password: ", false)], &[], &[("Password again: ", false)], &[]];
    let (connected, answers) = log_in(rounds, false).await;
    connected.unwrap();
    let expected: [&[&str]; 4] = [&[SECRET, SECRET], &[], &[SECRET], &[]];
    assert_eq!(answers, expected);
}

#[tokio::test]
async fn other_questions_stay_without_an_answer() {
    let rounds: &[&[Question]] = &[&[("Password: ", false), ("Token: ", false), ("Name: ", true)]];
    let (connected, answers) = log_in(rounds, false).await;
    let Err(ConnectError::Rejected { tried, .. }) = connected else { panic!("we were let in") };
    assert_eq!(tried.last().unwrap(), "keyboard-interactive (asked for more than the password)");
    assert_eq!(answers, [[SECRET, "", ""]]);
}

#[tokio::test]
async fn rounds_without_an_end_are_ended() {
    for rounds in [&[&[("Password: ", false)][..]][..], &[&[]], &[&[("Say: ", true)]]] {
        let (connected, answers) = log_in(rounds, true).await;
        let Err(ConnectError::Rejected { tried, .. }) = connected else { panic!("we were let in") };
        assert!(tried.last().unwrap().contains("asked without end"), "{tried:?}");
        assert!(answers.len() <= 17, "{}", answers.len());
        // A password that is asked for again and again is not given again and again.
        assert!(answers.iter().flatten().filter(|answer| !answer.is_empty()).count() <= 3);
    }
}
