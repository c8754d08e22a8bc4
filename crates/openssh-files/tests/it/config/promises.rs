//! What `ssh -G` cannot tell: values for use, whose files may say what, and where we differ from it on purpose.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::time::Duration;

use openssh_files::config::{
    Config, ExpandError, ForwardAgent, IdentityAgent, LoadError, Local, Overrides, Owner, Proxy,
    ResolveError, Resolved, Source, Target, Whose,
};

fn local<'a>(exec: &'a dyn Fn(&str) -> std::io::Result<bool>) -> Local<'a> {
    Local {
        home: "/home/me",
        user: "me",
        uid: 1000,
        host_name: "box.example",
        environment: &|name| (name == "SET").then(|| "value".to_owned()),
        home_of: &|_| None,
        exec,
    }
}

fn parsed(text: &str) -> Config {
    Config::parse("config", text.as_bytes()).unwrap()
}

fn resolved(text: &str, host: &str) -> Result<Resolved, ResolveError> {
    parsed(text).resolve(host, &Overrides::default(), &local(&|_| panic!("nothing is to be run")))
}

#[test]
fn files_for_use_are_expanded_each_for_itself() {
    let text = "HostName %h.example\nUser a\nPort 33\nIdentityFile none\nIdentityFile ~/.ssh/%r@%h:%p\n\
        IdentityFile ${UNSET}/x\nCertificateFile ${SET}/%k\n";
    let resolved = resolved(text, "DB").unwrap();
    let paths: Vec<_> = resolved.identity_files.iter().map(|file| file.path.clone()).collect();
    assert_eq!(
        paths,
        [Ok("/home/me/.ssh/a@db.example:33".to_owned()), Err(ExpandError::Variable("UNSET".to_owned()))]
    );
    assert_eq!(resolved.certificate_files[0].path, Ok("value/DB".to_owned()));
    assert!(resolved.are_identity_files_given);
}

#[test]
fn keys_where_nothing_is_said() {
    let resolved = resolved("", "h").unwrap();
    assert!(!resolved.are_identity_files_given);
    let paths: Vec<_> = resolved.identity_files.iter().map(|file| file.path.clone().unwrap()).collect();
    assert!(paths.contains(&"/home/me/.ssh/id_ed25519".to_owned()));
    assert_eq!(resolved.user, "me");
    assert_eq!(
        (resolved.connect_timeout, resolved.compression, resolved.strict_host_key_checking),
        (None, None, None)
    );
}

#[test]
fn no_key_at_all() {
    let resolved = resolved("IdentityFile none\n", "h").unwrap();
    assert!(resolved.identity_files.is_empty() && resolved.are_identity_files_given);
}

#[test]
fn proxies_for_use() {
    let text = "Host a\n ProxyJump u@%h.jump:33,[::1]\nHost b\n ProxyCommand nc %h %p %r %n %% $HOME\nHost c\n \
        ProxyCommand nc %u\nHost d\n ProxyJump none\n ProxyCommand x\n";
    let proxy = |host| resolved(text, host).unwrap().proxy;
    let hop = |text| Target::parse(text).unwrap();
    assert_eq!(proxy("a"), Proxy::Jump(vec![hop("u@a.jump:33"), hop("[::1]")]));
    assert_eq!(proxy("b"), Proxy::Command(Ok("nc b 22 me b % $HOME".to_owned())));
    assert_eq!(proxy("c"), Proxy::Command(Err(ExpandError::Token("nc %u".to_owned()))));
    assert_eq!(proxy("d"), Proxy::Direct);
}

#[test]
fn agents_for_use() {
    let text = "Host a\n IdentityAgent $SOCK\n ForwardAgent $OTHER\nHost b\n IdentityAgent ~/s\n ForwardAgent no\n \
        ForwardAgent ~/t\nHost c\n IdentityAgent none\n ForwardAgent ~/%n\n";
    let agents = |host| {
        let resolved = resolved(text, host).unwrap();
        (resolved.identity_agent, resolved.forward_agent)
    };
    let named = |name: &str| name.to_owned();
    assert_eq!(
        agents("a"),
        (Some(IdentityAgent::Variable(named("SOCK"))), ForwardAgent::Variable(named("OTHER")))
    );
    assert_eq!(agents("b"), (Some(IdentityAgent::Socket(named("/home/me/s"))), ForwardAgent::No));
    assert_eq!(agents("c"), (Some(IdentityAgent::None), ForwardAgent::Socket(named("/home/me/c"))));
    assert_eq!(agents("d"), (None, ForwardAgent::No));
}

#[test]
fn variables_to_send_are_patterns() {
    let resolved = resolved("SendEnv LANG LC_*\n", "h").unwrap();
    let sent = ["LANG", "LC_ALL", "LC_", "LANGUAGE", "PATH"].map(|name| resolved.is_sent(name));
    assert_eq!(sent, [true, true, true, false, false]);
}

#[test]
fn a_target_lays_user_and_port_before_the_file() {
    let mut overrides = Overrides::default();
    overrides.target(&Target::parse("you@h:44").unwrap());
    overrides.option("ConnectTimeout", "1m").unwrap();
    overrides.option("User", "somebody").unwrap();
    let config = parsed("User a\nPort 33\nConnectTimeout 5\n");
    let resolved = config.resolve("h", &overrides, &local(&|_| Ok(false))).unwrap();
    assert_eq!((resolved.user.as_str(), resolved.port), ("you", 44));
    assert_eq!(resolved.connect_timeout, Some(Duration::from_mins(1)));
}

#[test]
fn hosts_and_users_that_a_shell_could_mistake_are_refused() {
    for host in ["-x", "a;b", "a b", "", "$(x)"] {
        assert!(matches!(resolved("ProxyCommand nc %h\n", host), Err(ResolveError::Target(_))), "{host}");
    }
    let mut overrides = Overrides::default();
    overrides.arguments(["-l", "a`b`"]).unwrap();
    let error = parsed("").resolve("h", &overrides, &local(&|_| Ok(false)));
    assert!(matches!(error, Err(ResolveError::Target(_))));
}

#[test]
fn unknown_keywords_are_passed_over() {
    let resolved = resolved("Nonsense \"open\nForwardX11 maybe\nUser a\n", "h").unwrap();
    assert_eq!(resolved.user, "a");
}

#[test]
fn errors_name_file_and_line() {
    let message = |text: &str| Config::parse("dir/config", text.as_bytes()).unwrap_err().to_string();
    assert_eq!(message("\n# x\nPort nope\n"), "dir/config:3: Port cannot be \"nope\"");
    assert_eq!(message("User \"a\n"), "dir/config:1: User has a quotation without an end");
    assert_eq!(message("Match user\n"), "dir/config:1: Match user has no argument");
    assert_eq!(message("\u{feff}Host x\n"), "dir/config:1: \"\\u{feff}Host\" is not a keyword");
    assert_eq!(
        message(&format!("#\nUser {}\n", "a".repeat(70_000))),
        "dir/config:2: longer than 65536 bytes"
    );
    assert_eq!(
        resolved("\nHost h\n HostName %z\n", "h").unwrap_err().to_string(),
        "config:3: HostName: unknown token in \"%z\""
    );
    let many: String = (0..101).map(|number| format!("IdentityFile {number}\n")).collect();
    assert_eq!(resolved(&many, "h").unwrap_err().to_string(), "config:101: more than 100 of IdentityFile");
}

#[test]
fn names_that_dns_would_have_to_complete_are_refused() {
    let text = "CanonicalizeHostname yes\nCanonicalDomains corp.example\nHost addr\n HostName 10.0.0.1\nHost via\n \
        ProxyJump j\n";
    assert!(matches!(resolved(text, "web"), Err(ResolveError::CanonicalDomains(host)) if host == "web"));
    for host in ["web.corp.example", "addr", "via", "web."] {
        assert!(resolved(text, host).is_ok(), "{host}");
    }
}

#[test]
fn programs_run_only_where_everything_before_them_holds() {
    let text = "Match host x exec one\nMatch exec \"two %h\" exec three\nHost x\nMatch !exec four\n";
    let ran = RefCell::new(Vec::new());
    let exec = |command: &str| {
        ran.borrow_mut().push(command.to_owned());
        Ok(false)
    };
    parsed(text).resolve("h", &Overrides::default(), &local(&exec)).unwrap();
    assert_eq!(*ran.borrow(), ["two h", "four"]);
}

#[test]
fn a_program_that_cannot_run_is_an_error() {
    let fails = |_: &str| Err(std::io::Error::other("no shell"));
    let error = parsed("\nMatch exec x\n").resolve("h", &Overrides::default(), &local(&fails)).unwrap_err();
    assert_eq!(error.to_string(), "config:2: Match exec: no shell");
}

/// A home directory with an own file and one of the system, each of which may be missing.
struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new(files: &[(&str, &str)]) -> Home {
        let home = Home { folder: tempfile::tempdir().unwrap() };
        files.iter().for_each(|(name, text)| home.write(name, text));
        home
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text.replace("{D}", self.folder.path().to_str().unwrap())).unwrap();
        #[cfg(unix)]
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }

    fn source(&self, name: &str, whose: Whose) -> Source {
        Source { path: self.path(name), whose, may_be_missing: true }
    }

    fn load(&self, sources: &[Source]) -> Result<Config, LoadError> {
        let home_of = |name: &str| (name == "you").then(|| self.path("you").to_str().unwrap().to_owned());
        Config::load(
            sources,
            self.folder.path().to_str().unwrap(),
            &home_of,
            &owner(&self.path(".ssh/config")),
        )
    }
}

/// Whoever owns this file.
#[cfg(unix)]
fn owner(path: &Path) -> Owner {
    let uid = fs::metadata(path).map(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata));
    Owner { uid: uid.unwrap_or(0), private_group: None }
}

#[cfg(not(unix))]
fn owner(_: &Path) -> Owner {
    Owner { uid: 0, private_group: None }
}

#[test]
fn own_files_come_first_and_include_from_the_home() {
    let home = Home::new(&[
        (".ssh/config", "Include conf.d/* ~/more ~you/theirs ~nobody/x\nPort 33\n"),
        (".ssh/conf.d/a", "User a\n"),
        (".ssh/conf.d/b", "User b\nInclude nested\n"),
        (".ssh/nested", "BindAddress nested\n"),
        ("more", "HostKeyAlias more\n"),
        ("you/theirs", "Compression yes\n"),
        ("system", "Port 44\nConnectTimeout 7\n"),
    ]);
    let config =
        home.load(&[home.source(".ssh/config", Whose::Own), home.source("system", Whose::System)]).unwrap();
    let resolved = config.resolve("h", &Overrides::default(), &local(&|_| Ok(false))).unwrap();
    assert_eq!((resolved.user.as_str(), resolved.port), ("a", 33));
    assert_eq!(resolved.bind_address.as_deref(), Some("nested"));
    assert_eq!(resolved.host_key_alias.as_deref(), Some("more"));
    assert_eq!(resolved.compression, Some(true));
    assert_eq!(resolved.connect_timeout, Some(Duration::from_secs(7)));
}

#[test]
fn files_that_may_be_missing_and_those_that_may_not() {
    let home = Home::new(&[]);
    let source = home.source("missing", Whose::Own);
    assert!(home.load(std::slice::from_ref(&source)).is_ok());
    let error = home.load(&[Source { may_be_missing: false, ..source }]).unwrap_err();
    assert!(matches!(error, LoadError::Io { .. }), "{error}");
    let error = home.load(&[home.source("", Whose::Own)]).unwrap_err();
    assert!(matches!(error, LoadError::NotAFile(_)), "{error}");
}

#[test]
fn programs_are_for_own_files() {
    let text = "Host a\n ProxyCommand nc\nHost b\n ProxyJump j\n ProxyCommand nc\nMatch originalhost c exec true\n User x\n";
    let home = Home::new(&[(".ssh/config", "Host x\n"), ("other", text)]);
    let resolve = |whose, host: &str| {
        let config = home.load(&[home.source("other", whose)]).unwrap();
        let resolved = config.resolve(host, &Overrides::default(), &local(&|_| Ok(true)));
        resolved.map(|resolved| resolved.user).map_err(|error| error.to_string())
    };
    let path = home.path("other");
    let refusal = |line: usize, keyword: &str| {
        Err(format!("{}:{line}: {keyword} is for the user's own configuration", path.display()))
    };
    assert_eq!(resolve(Whose::Own, "a"), Ok("me".to_owned()));
    assert_eq!(resolve(Whose::Own, "c"), Ok("x".to_owned()));
    assert_eq!(resolve(Whose::System, "a"), Ok("me".to_owned()));
    assert_eq!(resolve(Whose::System, "c"), refusal(6, "Match exec"));
    assert_eq!(resolve(Whose::Foreign, "a"), refusal(2, "ProxyCommand"));
    // What takes no effect is no danger.
    assert_eq!(resolve(Whose::Foreign, "b"), Ok("me".to_owned()));
    assert_eq!(resolve(Whose::Foreign, "c"), refusal(6, "Match exec"));
    assert_eq!(resolve(Whose::Foreign, "d"), Ok("me".to_owned()));
}

#[test]
fn a_system_file_includes_from_no_home() {
    let home = Home::new(&[("system", "Include ~/x\n")]);
    let error = home.load(&[home.source("system", Whose::System)]).unwrap_err();
    assert!(
        error.to_string().ends_with("system:1: Include of a home directory in a file of the system"),
        "{error}"
    );
}

#[test]
fn includes_end_at_some_depth_and_number() {
    let home = Home::new(&[(".ssh/config", "Include d1\n")]);
    for depth in 1..=16 {
        let text = if depth < 16 { format!("Include d{}\n", depth + 1) } else { "User deep\n".to_owned() };
        home.write(&format!(".ssh/d{depth}"), &text);
    }
    let sources = [home.source(".ssh/config", Whose::Own)];
    let config = home.load(&sources).unwrap();
    let resolved = config.resolve("h", &Overrides::default(), &local(&|_| Ok(false))).unwrap();
    assert_eq!(resolved.user, "deep");
    home.write(".ssh/d16", "Include d1\n");
    let error = home.load(&sources).unwrap_err();
    assert!(error.to_string().ends_with("d16:1: includes are more than 16 deep"), "{error}");
    home.write(".ssh/config", "Include d10 d10\n");
    for depth in 10..=16 {
        let next = format!("d{}", depth + 1);
        home.write(&format!(".ssh/d{depth}"), &format!("Include {next} {next} {next} {next}\n"));
    }
    home.write(".ssh/d17", "User x\n");
    let error = home.load(&sources).unwrap_err();
    assert!(error.to_string().ends_with("more than 4096 files are included"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_file_that_others_may_write_is_refused() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let home = Home::new(&[(".ssh/config", "User a\n")]);
    let path = home.path(".ssh/config");
    let gid = fs::metadata(&path).unwrap().gid();
    let me = owner(&path);
    let load = |mode: u32, owner: Owner, whose| {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let sources = [home.source(".ssh/config", whose)];
        Config::load(&sources, "/", &|_| None, &owner).map(drop).map_err(|error| error.to_string())
    };
    let refusal = Err(format!("Bad owner or permissions on {}", path.display()));
    assert_eq!(load(0o600, me, Whose::Own), Ok(()));
    assert_eq!(load(0o644, me, Whose::Foreign), Ok(()));
    for mode in [0o620, 0o602, 0o666, 0o777] {
        assert_eq!(load(mode, me, Whose::Own), refusal, "{mode:o}");
        assert_eq!(load(mode, me, Whose::Foreign), refusal, "{mode:o}");
        assert_eq!(load(mode, me, Whose::System), Ok(()), "{mode:o}");
    }
    let alone = Owner { private_group: Some(gid), ..me };
    assert_eq!(load(0o660, alone, Whose::Own), Ok(()));
    assert_eq!(load(0o662, alone, Whose::Own), refusal);
    // Root's files are everybody's; those of somebody else are not.
    let other = Owner { uid: me.uid + 1, private_group: None };
    let expected = if me.uid == 0 { Ok(()) } else { refusal };
    assert_eq!(load(0o600, other, Whose::Own), expected);
}

#[cfg(unix)]
#[test]
fn devices_hold_nothing_and_pipes_are_refused() {
    let load = |path: &Path| {
        let source = Source { path: path.to_owned(), whose: Whose::Own, may_be_missing: false };
        Config::load(&[source], "/", &|_| None, &Owner { uid: 0, private_group: None })
    };
    assert!(load(Path::new("/dev/null")).is_ok());
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    if std::process::Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()) {
        assert!(matches!(load(&pipe), Err(LoadError::NotAFile(_))));
    }
}
