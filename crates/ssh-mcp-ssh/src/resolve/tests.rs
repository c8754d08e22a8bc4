use super::*;

use ssh_mcp_core::port::resolve::Defaults;
use ssh_mcp_testkit::host::defaults;

/// A user whose home holds this configuration.
fn user(home: &Path, config: &str) -> LocalUser {
    std::fs::create_dir_all(home.join(".ssh")).unwrap();
    std::fs::write(home.join(".ssh/config"), config).unwrap();
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(home).unwrap());
    LocalUser {
        home: home.to_str().unwrap().to_owned(),
        name: "me".to_owned(),
        uid,
        host_name: "here".to_owned(),
        owner: Owner { uid, private_group: None },
        home_of: Box::new(|_| None),
        environment: Box::new(|name| (name == "AGENT").then(|| "/run/agent".to_owned())),
    }
}

fn ask(target: &str) -> TargetAsk {
    TargetAsk {
        target: target.to_owned(),
        username: None,
        port: None,
        identity_files: Vec::new(),
        key_passphrase: None,
        password: None,
        config: ConfigFiles::Usual,
        known_hosts_file: None,
        host_key_policy: None,
        proxy_jump: None,
        compression: None,
        options: Vec::new(),
        arguments: Vec::new(),
        asker: Asker::Local,
        defaults: Defaults { agent_socket: Some("/run/usual".into()), ..defaults() },
    }
}

fn way(config: &str, ask: &TargetAsk) -> Result<Vec<String>, ResolveError> {
    let home = tempfile::tempdir().unwrap();
    let Resolved { via, hop, .. } = resolve(ask, &user(home.path(), config))?;
    Ok(via.iter().chain([&hop]).map(|hop| hop.target.to_string()).collect())
}

fn hop(config: &str, ask: &TargetAsk) -> Hop {
    let home = tempfile::tempdir().unwrap();
    resolve(ask, &user(home.path(), config)).unwrap().hop
}

#[test]
fn each_host_on_the_way_is_looked_up_for_itself() {
    let config = "Host a\n User ann\nHost b\n Port 2\n ProxyJump a\nHost c\n ProxyJump b\nHost d\n ProxyJump c,u@x:3\n";
    let cases: [(&str, &[&str]); 4] = [
        ("a", &["ann@a:22"]),
        ("b", &["ann@a:22", "me@b:2"]),
        ("c", &["ann@a:22", "me@b:2", "me@c:22"]),
        ("d", &["ann@a:22", "me@b:2", "me@c:22", "u@x:3", "me@d:22"]),
    ];
    for (target, expected) in cases {
        assert_eq!(way(config, &ask(target)).unwrap(), expected, "{target}");
    }
    let straight = TargetAsk { proxy_jump: Some("none".to_owned()), ..ask("d") };
    assert_eq!(way(config, &straight).unwrap(), ["me@d:22"]);
    // A list says of all but its first how they are reached.
    let listed = TargetAsk { proxy_jump: Some("x,b".to_owned()), ..ask("a") };
    assert_eq!(way(config, &listed).unwrap(), ["me@x:22", "me@b:2", "ann@a:22"]);
    let round = "Host a\n ProxyJump b\nHost b\n ProxyJump a\n";
    let endless = way(round, &ask("a"));
    assert_eq!(endless, Err(ResolveError::Config("more than 16 hosts to jump over".to_owned())));
}

#[test]
fn what_a_call_shows_is_for_the_last_host() {
    let home = tempfile::tempdir().unwrap();
    let user = user(home.path(), "Host a\n IdentityFile ~/own\nHost b\n ProxyJump a\n");
    let call = TargetAsk {
        password: Some(ssh_mcp_core::target::Secret::new("x".to_owned())),
        identity_files: vec!["/called".into()],
        ..ask("b")
    };
    let Resolved { via, hop, .. } = resolve(&call, &user).unwrap();
    let files = |hop: &Hop| -> Vec<_> {
        hop.credentials.key_files.iter().map(|file| (file.path.clone(), file.need)).collect()
    };
    assert_eq!(files(&hop), [("/called".into(), Need::Required)]);
    assert!(hop.credentials.password.is_some());
    assert_eq!(files(&via[0]), [(home.path().join("own"), Need::IfUsable)]);
    assert!(via[0].credentials.password.is_none());
}

#[test]
fn a_check_is_never_weaker_than_the_operator_wants() {
    use HostKeyPolicy::{AcceptNew, Ask, DangerAcceptAny, Strict};
    let policy = |setting, said: &str, asked| {
        let call = TargetAsk {
            host_key_policy: asked,
            defaults: Defaults { host_key_policy: setting, ..defaults() },
            ..ask("h")
        };
        hop(&format!("Host h\n{said}\n"), &call).host_keys.policy
    };
    assert_eq!(policy(AcceptNew, "", None), AcceptNew);
    assert_eq!(policy(AcceptNew, "", Some(Strict)), Strict);
    assert_eq!(policy(AcceptNew, "", Some(DangerAcceptAny)), AcceptNew);
    assert_eq!(policy(DangerAcceptAny, "", Some(AcceptNew)), AcceptNew);
    assert_eq!(policy(DangerAcceptAny, "", Some(DangerAcceptAny)), DangerAcceptAny);
    // The user's own file is the operator's word.
    assert_eq!(policy(Strict, "StrictHostKeyChecking no", None), DangerAcceptAny);
    assert_eq!(policy(AcceptNew, "StrictHostKeyChecking ask", Some(DangerAcceptAny)), Ask);
    assert_eq!(policy(AcceptNew, "", Some(Ask)), Ask);
    assert_eq!(policy(Ask, "", Some(AcceptNew)), Ask);
    assert_eq!(policy(Strict, "", Some(Ask)), Strict);
    assert_eq!(policy(Strict, "StrictHostKeyChecking ask", None), Ask);
}

#[test]
fn agents_keys_and_lines_are_what_the_file_says() {
    let config = "Host *\n IdentityAgent $AGENT\n IdentitiesOnly yes\n PreferredAuthentications publickey\n \
        AddressFamily inet6\n BindAddress 10.0.0.1\n ServerAliveInterval 7\n Compression yes\n Ciphers aes256-ctr\n \
        UserKnownHostsFile /k1 /k2\n GlobalKnownHostsFile none\n HostKeyAlias Alias\n HashKnownHosts yes\n";
    let hop = hop(config, &ask("h"));
    assert_eq!(hop.credentials.agent_socket, Some("/run/agent".into()));
    assert_eq!(hop.credentials.agent_keys, AgentKeys::OfKeyFiles);
    let only_keys = Methods { publickey: true, password: false, keyboard_interactive: false };
    assert_eq!(hop.credentials.methods, only_keys);
    assert_eq!((hop.wire.family, hop.wire.bind_address.as_deref()), (Family::V6, Some("10.0.0.1")));
    assert_eq!(hop.wire.keepalive.interval.as_secs(), 7);
    assert_eq!(hop.wire.compression, Compression::On);
    assert_eq!(hop.wire.algorithms.ciphers, Some(vec!["aes256-ctr".to_owned()]));
    assert_eq!(hop.host_keys.user_files, [PathBuf::from("/k1"), "/k2".into()]);
    assert_eq!(hop.host_keys.global_files, Some(Vec::new()));
    assert_eq!(hop.host_keys.hashed, Some(true));
    assert_eq!(hop.host_key_name.as_deref(), Some("alias"));
}

#[test]
fn callers_from_elsewhere_name_no_files_in_options() {
    let foreign = |options: &[(&str, &str)], arguments: &[&str]| {
        let call = TargetAsk {
            asker: Asker::Foreign,
            options: options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            ..ask("h")
        };
        way("", &call)
    };
    assert!(foreign(&[("Port", "23")], &["-4"]).is_ok());
    for keyword in
        ["IdentityFile", "CertificateFile", "IdentityAgent", "UserKnownHostsFile", "GlobalKnownHostsFile"]
    {
        assert!(matches!(foreign(&[(keyword, "/f")], &[]), Err(ResolveError::Call(_))), "{keyword}");
    }
    for arguments in [["-i/f", "-4"], ["-F/f", "-4"], ["-oidentityfile=/f", "-4"]] {
        assert!(matches!(foreign(&[], &arguments), Err(ResolveError::Call(_))), "{arguments:?}");
    }
}

#[test]
fn programs_are_run_for_the_usual_files_only() {
    let home = tempfile::tempdir().unwrap();
    let (ran, chosen) = (home.path().join("ran"), home.path().join("chosen"));
    let config = format!("Match exec \"touch {}\"\n User ann\n", ran.display());
    let user = user(home.path(), &config);
    std::fs::write(&chosen, &config).unwrap();
    let only = |path: &Path| TargetAsk { config: ConfigFiles::Only(path.to_owned()), ..ask("h") };
    let refused = resolve(&only(&chosen), &user).unwrap_err();
    assert!(matches!(&refused, ResolveError::Config(text) if text.contains("chosen:1")), "{refused:?}");
    let by_argument =
        TargetAsk { arguments: vec!["-F".to_owned(), chosen.to_str().unwrap().to_owned()], ..ask("h") };
    resolve(&by_argument, &user).unwrap_err();
    assert!(!ran.exists());
    for asked in [ask("h"), only(&home.path().join(".ssh/config"))] {
        assert_eq!(resolve(&asked, &user).unwrap().hop.target.username, "ann");
        std::fs::remove_file(&ran).unwrap();
    }
}

#[test]
fn a_proxy_command_is_not_passed_over() {
    let refused = way("Host h\n ProxyCommand nc %h %p\n", &ask("h"));
    assert!(
        matches!(&refused, Err(ResolveError::Config(words)) if words.contains("ProxyCommand")),
        "{refused:?}"
    );
}
