//! What a call lays before the files: options by keyword, and the arguments of `ssh` that have a meaning here.
//!
//! A call may choose where to connect and how, but it must not run programs on this machine and must not open ports: the
//! options and flags that do are refused by name, whatever their value.

use super::problem::Problem;
use super::resolved::HostKeyChecking;
use super::setting::Setting;
use super::target::{self, Target};
use super::words;

/// Settings of a call, the strongest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The configuration file of `-F`; `none` reads none.
    pub config_file: Option<String>,
    /// Flags that hold whatever else is said: `-4`, `-6`, `-A`, `-a`, `-C`. The last of a kind counts.
    flags: Vec<Setting>,
    settings: Vec<Setting>,
    has_jump_flag: bool,
}

/// Why an option or argument of a call is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    /// It would run a program here or open a port.
    #[error("{0} is not for calls")]
    Blocked(String),
    /// No argument that has a meaning here.
    #[error("argument {0:?} has no meaning here")]
    Unknown(String),
    /// A flag without its value.
    #[error("{0} needs a value")]
    NoValue(String),
    /// A second `-J`, or one beside `ProxyJump`.
    #[error("-J does not stand beside another -J or ProxyJump: list all hops in one")]
    SecondJump,
    /// A value that cannot be.
    #[error("{0}")]
    Problem(#[from] Problem),
}

impl Overrides {
    /// Adds an option; a keyword that was given before keeps its value, one that is not honoured is passed over.
    ///
    /// A value is read as in a file: quotations, comments and a leading `=` are what they are there.
    pub fn option(&mut self, keyword: &str, value: &str) -> Result<(), OverrideError> {
        self.line(&format!("{keyword} {value}"))
    }

    /// Adds what a target says about user and port.
    pub fn target(&mut self, target: &Target) {
        self.settings.extend(target.user.clone().map(Setting::User));
        self.settings.extend(target.port.map(Setting::Port));
    }

    /// Takes out what is said about unknown host keys, the strongest word: for callers that may ask for more than
    /// somebody else wants, and not for less.
    pub fn take_host_key_checking(&mut self) -> Option<HostKeyChecking> {
        let mut taken = None;
        self.settings.retain(|setting| {
            let Setting::StrictHostKeyChecking(checking) = setting else { return true };
            taken.get_or_insert(*checking);
            false
        });
        taken
    }

    /// Adds arguments of `ssh`, attached (`-p22`) or apart: `-p -i -l -J -F -o -4 -6 -A -a -C -v`.
    pub fn arguments<S: AsRef<str>>(
        &mut self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<(), OverrideError> {
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let argument = argument.as_ref();
            let unknown = || OverrideError::Unknown(argument.to_owned());
            let mut flags =
                argument.strip_prefix('-').filter(|flags| !flags.is_empty()).ok_or_else(unknown)?;
            while let Some(flag) = flags.chars().next() {
                flags = flags.get(flag.len_utf8()..).unwrap_or_default();
                match flag {
                    'L' | 'R' | 'D' | 'W' => return Err(OverrideError::Blocked(format!("-{flag}"))),
                    '4' => self.flag(Setting::AddressFamily(super::AddressFamily::Inet)),
                    '6' => self.flag(Setting::AddressFamily(super::AddressFamily::Inet6)),
                    'A' => self.flag(Setting::ForwardAgent(true)),
                    'a' => self.flag(Setting::ForwardAgent(false)),
                    'C' => self.flag(Setting::Compression(true)),
                    'v' => {}
                    'p' | 'i' | 'l' | 'J' | 'F' | 'o' => {
                        let value = match std::mem::take(&mut flags) {
                            "" => arguments.next().map(|value| value.as_ref().to_owned()),
                            attached => Some(attached.to_owned()),
                        };
                        let value = value.filter(|value| !value.is_empty());
                        self.valued(flag, value.ok_or_else(|| OverrideError::NoValue(format!("-{flag}")))?)?;
                    }
                    _ => return Err(unknown()),
                }
            }
        }
        Ok(())
    }

    /// Whether a host or user is named that may mean something to a shell, where a `ProxyCommand` or a `Match exec` puts it in.
    pub fn names_no_host(&self) -> bool {
        self.settings.iter().any(|setting| {
            if let Setting::HostName(name) = setting {
                return target::check_host(&name.replace("%h", "h").replace("%%", "p")).is_err();
            }
            matches!(setting, Setting::User(user) if user.contains('$'))
        })
    }

    /// Whether there is anything beside the user: what leads elsewhere than the target alone would.
    pub fn lead_elsewhere(&self) -> bool {
        !self.flags.is_empty() || self.settings.iter().any(|setting| !matches!(setting, Setting::User(_)))
    }

    /// The keyword by which the host gets another name, or another one to be known by.
    pub fn rename(&self) -> Option<&'static str> {
        let is_known = |wanted: fn(&Setting) -> bool| self.settings.iter().any(wanted);
        if is_known(|setting| matches!(setting, Setting::HostKeyAlias(_))) {
            return Some("HostKeyAlias");
        }
        is_known(|setting| matches!(setting, Setting::HostName(_))).then_some("HostName")
    }

    pub(super) fn settings(&self) -> impl Iterator<Item = &Setting> {
        self.flags.iter().rev().chain(&self.settings)
    }

    fn flag(&mut self, setting: Setting) {
        self.flags.push(setting);
    }

    fn valued(&mut self, flag: char, value: String) -> Result<(), OverrideError> {
        let setting = match flag {
            'p' => {
                let port = super::setting::port(&value);
                Setting::Port(port.ok_or_else(|| Problem::value("-p", &value))?)
            }
            'i' => Setting::IdentityFile(value),
            'l' => Setting::User(value),
            'J' => {
                let has_option = self.settings.iter().any(|known| matches!(known, Setting::ProxyJump(_)));
                if has_option || std::mem::replace(&mut self.has_jump_flag, true) {
                    return Err(OverrideError::SecondJump);
                }
                return self.line(&format!("ProxyJump {value}"));
            }
            'F' => {
                self.config_file.get_or_insert(value);
                return Ok(());
            }
            _ => return self.line(&value),
        };
        self.settings.push(setting);
        Ok(())
    }

    /// `keyword value` or `keyword=value`.
    fn line(&mut self, line: &str) -> Result<(), OverrideError> {
        let Some(content) = words::content(line.as_bytes()) else { return Ok(()) };
        let content = content?;
        // More than one line would be more than one option, and only the first would be looked at.
        if content.contains('\n') {
            return Err(Problem::NotText.into());
        }
        let (keyword, rest) = words::keyword(content)?;
        if let Some((_, name)) = BLOCKED.iter().find(|(blocked, _)| *blocked == keyword) {
            return Err(OverrideError::Blocked((*name).to_owned()));
        }
        match keyword.as_str() {
            "host" => return Err(Problem::FilesOnly("Host").into()),
            "match" => return Err(Problem::FilesOnly("Match").into()),
            "include" => return Err(Problem::FilesOnly("Include").into()),
            _ => {}
        }
        self.settings.extend(Setting::parse(&keyword, rest)?);
        Ok(())
    }
}

/// Keywords that run programs on this machine or open ports, and their names.
const BLOCKED: [(&str, &str); 11] = [
    ("proxycommand", "ProxyCommand"),
    ("localcommand", "LocalCommand"),
    ("permitlocalcommand", "PermitLocalCommand"),
    ("localforward", "LocalForward"),
    ("remoteforward", "RemoteForward"),
    ("dynamicforward", "DynamicForward"),
    // They run a program, or load its like.
    ("knownhostscommand", "KnownHostsCommand"),
    ("pkcs11provider", "PKCS11Provider"),
    ("smartcarddevice", "SmartcardDevice"),
    ("securitykeyprovider", "SecurityKeyProvider"),
    ("xauthlocation", "XAuthLocation"),
];
