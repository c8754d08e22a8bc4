//! An agent that holds one `sk-ssh-ed25519` key, signing in software as a security key does (PROTOCOL.u2f of OpenSSH).
//!
//! It speaks just enough of the agent's protocol (draft-miller-ssh-agent) for a login: list and sign. `openssl` computes.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A running agent; its thread ends with the test process.
pub(crate) struct SecurityKey {
    dir: TempDir,
    blob: Vec<u8>,
}

impl SecurityKey {
    /// Makes a key and listens.
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("ssh-mcp-sk-").tempdir().expect("a temporary directory");
        let key = dir.path().join("key.pem");
        openssl(&["genpkey", "-algorithm", "ed25519", "-out", text(&key)], &[]);
        let der = openssl(&["pkey", "-in", text(&key), "-pubout", "-outform", "DER"], &[]);
        // The raw key ends the structure (RFC 8410).
        let public = &der[der.len() - 32..];
        let blob = [string(KIND), string(public), string(APPLICATION)].concat();
        let listener = UnixListener::bind(dir.path().join("agent.sock")).expect("a new socket");
        let answers = blob.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (key, blob) = (key.clone(), answers.clone());
                std::thread::spawn(move || serve(client, &key, &blob));
            }
        });
        Self { dir, blob }
    }

    /// What `SSH_AUTH_SOCK` is set to.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    /// The line of `authorized_keys`.
    pub(crate) fn public_line(&self) -> String {
        let kind = String::from_utf8_lossy(KIND);
        let blob = openssl(&["base64", "-A"], &self.blob);
        format!("{kind} {}", String::from_utf8_lossy(&blob))
    }
}

fn serve(mut client: UnixStream, key: &Path, blob: &[u8]) {
    let mut length = [0; 4];
    while client.read_exact(&mut length).is_ok() {
        let mut message = vec![0; u32::from_be_bytes(length) as usize];
        if client.read_exact(&mut message).is_err() {
            return;
        }
        let answer = match message.first() {
            Some(&REQUEST_IDENTITIES) => {
                [vec![IDENTITIES_ANSWER], 1_u32.to_be_bytes().to_vec(), string(blob), string(b"sk")].concat()
            }
            Some(&SIGN_REQUEST) => {
                let (_, rest) = take(&message[1..]);
                let (data, _) = take(rest);
                [vec![SIGN_RESPONSE], string(&sign(key, data))].concat()
            }
            _ => vec![FAILURE],
        };
        if client.write_all(&string(&answer)).is_err() {
            return;
        }
    }
}

/// What a security key signs is the application, that somebody touched it, a counter, and the message.
fn sign(key: &Path, message: &[u8]) -> Vec<u8> {
    let hash = |bytes: &[u8]| openssl(&["dgst", "-sha256", "-binary"], bytes);
    let counter = 7_u32.to_be_bytes();
    let signed = [hash(APPLICATION), vec![TOUCHED], counter.to_vec(), hash(message)].concat();
    // From a file: openssl wants to know the length of what it signs beforehand.
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), signed).expect("our own file");
    let arguments = ["pkeyutl", "-sign", "-inkey", text(key), "-rawin", "-in", text(file.path())];
    let signature = openssl(&arguments, &[]);
    [string(KIND), string(&signature), vec![TOUCHED], counter.to_vec()].concat()
}

fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut openssl = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl starts");
    let mut stdin = openssl.stdin.take().expect("stdin is piped");
    stdin.write_all(input).expect("openssl reads");
    drop(stdin);
    let output = openssl.wait_with_output().expect("openssl ends");
    assert!(output.status.success(), "openssl {arguments:?} failed");
    output.stdout
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("short");
    [&length.to_be_bytes(), bytes].concat()
}

fn take(bytes: &[u8]) -> (&[u8], &[u8]) {
    let length = u32::from_be_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
    bytes[4..].split_at(length)
}

const KIND: &[u8] = b"sk-ssh-ed25519@openssh.com";
const APPLICATION: &[u8] = b"ssh:";
const TOUCHED: u8 = 1;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
