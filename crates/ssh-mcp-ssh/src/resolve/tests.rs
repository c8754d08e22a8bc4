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
        environment: Box::new(|name| match name {
            "AGENT" => Some("/run/agent".to_owned()),
            "LC_ALL" | "LC_TIME" => Some("C".to_owned()),
            _ => None,
        }),
        variables: Box::new(|| ["LC_TIME", "AGENT", "LC_ALL"].map(str::to_owned).to_vec()),
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
        forwarding: None,
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
    assert_eq!(hop.credentials.order, Order(vec![Means::NamedKeys, Means::AgentKeys]));
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
fn a_proxy_command_leads_to_the_nearest_host() {
    let home = tempfile::tempdir().unwrap();
    let config = "Host h\n ProxyCommand nc %h %p\n User ann\nHost far\n ProxyJump h,b\nHost b\n ProxyCommand nc\n\
        Host fd\n ProxyCommand nc\n ProxyUseFdpass yes\n";
    let user = user(home.path(), config);
    let line = |hop: &Hop| hop.wire.program.as_ref().map(|program| program.line.clone());
    let near = resolve(&ask("h"), &user).unwrap();
    assert_eq!((near.via.len(), line(&near.hop).as_deref()), (0, Some("nc h 22")));
    let far = resolve(&ask("far"), &user).unwrap();
    let lines: Vec<_> = far.via.iter().chain([&far.hop]).map(line).collect();
    assert_eq!(lines, [Some("nc h 22".to_owned()), None, None]);
    let refusal = |ask: &TargetAsk| match resolve(ask, &user) {
        Err(ResolveError::Config(words)) => words,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal(&ask("fd")), "fd: ProxyUseFdpass is not supported");
    // A file that a call names runs nothing.
    let chosen = home.path().join("chosen");
    std::fs::write(&chosen, config).unwrap();
    let by_call = TargetAsk { config: ConfigFiles::Only(chosen), ..ask("h") };
    assert!(refusal(&by_call).contains("ProxyCommand"));
}

#[test]
fn methods_are_tried_in_the_order_that_is_said() {
    let order = |said: &str| hop(&format!("Host h\n{said}\n"), &ask("h")).credentials.order.0;
    use Means::{AgentKeys, KeyboardInteractive, NamedKeys, Password};
    assert_eq!(order(""), [NamedKeys, Password, KeyboardInteractive, AgentKeys]);
    let said = "PreferredAuthentications keyboard-interactive,gssapi-with-mic,publickey,password";
    assert_eq!(order(said), [KeyboardInteractive, NamedKeys, AgentKeys, Password]);
    assert_eq!(order("PubkeyAuthentication no\nPasswordAuthentication no"), [KeyboardInteractive]);
    let signatures = |said: &str| hop(&format!("Host h\n{said}\n"), &ask("h")).credentials.signatures;
    assert_eq!(signatures(""), None);
    assert_eq!(signatures("PubkeyAcceptedAlgorithms rsa-sha2-256"), Some(vec!["rsa-sha2-256".to_owned()]));
    assert!(signatures("PubkeyAcceptedAlgorithms +ssh-rsa").unwrap().contains(&"ssh-rsa".to_owned()));
}

#[test]
fn agent_and_variables_are_lent_as_the_file_or_the_call_says() {
    let lent = |said: &str, forwarding| {
        hop(&format!("Host h\n{said}\n"), &TargetAsk { forwarding, ..ask("h") }).lendings
    };
    let agent = |said: &str, forwarding| lent(said, forwarding).agent;
    let usual = Some(PathBuf::from("/run/usual"));
    assert_eq!(agent("", None), None);
    assert_eq!(agent("", Some(Forwarding::On)), usual);
    assert_eq!(agent("ForwardAgent yes", None), usual);
    assert_eq!(agent("ForwardAgent yes", Some(Forwarding::Off)), None);
    assert_eq!(agent("ForwardAgent $AGENT", None), Some("/run/agent".into()));
    assert_eq!(agent("ForwardAgent /a", Some(Forwarding::On)), Some("/a".into()));
    let variables = lent("SendEnv LC_*\nSetEnv LC_ALL=de X=y", None).variables;
    let pairs: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(pairs, [("LC_TIME", "C"), ("LC_ALL", "de"), ("X", "y")]);
    // Hosts on the way get nothing.
    let home = tempfile::tempdir().unwrap();
    let user = user(home.path(), "Host *\n ForwardAgent yes\n SetEnv X=y\nHost far\n ProxyJump near\n");
    let far = resolve(&ask("far"), &user).unwrap();
    assert_eq!(far.via[0].lendings, Lendings::default());
    assert!(far.hop.lendings.agent.is_some());
}

#[test]
fn callers_from_elsewhere_are_lent_nothing_by_their_own_word() {
    let home = tempfile::tempdir().unwrap();
    let user = user(home.path(), "Host open\n ForwardAgent yes\n");
    let foreign = |change: &dyn Fn(&mut TargetAsk)| {
        let mut call = TargetAsk { asker: Asker::Foreign, ..ask("h") };
        change(&mut call);
        resolve(&call, &user)
    };
    assert!(matches!(foreign(&|call| call.forwarding = Some(Forwarding::On)), Err(ResolveError::Call(_))));
    assert!(matches!(foreign(&|call| call.arguments = vec!["-A".to_owned()]), Err(ResolveError::Call(_))));
    for (keyword, value) in [("ForwardAgent", "yes"), ("SendEnv", "*")] {
        let option = vec![(keyword.to_owned(), value.to_owned())];
        assert!(matches!(foreign(&|call| call.options = option.clone()), Err(ResolveError::Call(_))));
        let chosen = home.path().join("chosen");
        std::fs::write(&chosen, format!("{keyword} {value}\n")).unwrap();
        let named = ConfigFiles::Only(chosen);
        assert!(
            matches!(foreign(&|call| call.config = named.clone()), Err(ResolveError::Call(_))),
            "{keyword}"
        );
    }
    assert!(foreign(&|call| call.forwarding = Some(Forwarding::Off)).is_ok());
    // What the operator's own file says holds for whoever calls.
    let open = foreign(&|call| call.target = "open".to_owned()).unwrap();
    assert!(open.hop.lendings.agent.is_some());
}

#[test]
fn names_of_a_call_mean_nothing_to_a_shell() {
    let home = tempfile::tempdir().unwrap();
    let user = user(home.path(), "Host prod\n ProxyCommand nc %h %p %k %r\n");
    let by_option = |asker, keyword: &str, value: &str| {
        let options = vec![(keyword.to_owned(), value.to_owned())];
        resolve(&TargetAsk { asker, options, ..ask("prod") }, &user)
    };
    for asker in [Asker::Local, Asker::Foreign] {
        for (keyword, value) in [
            ("HostName", "x;touch${IFS}ran"),
            ("HostName", "$(ran)"),
            ("HostName", "-oProxyCommand=ran"),
            ("HostKeyAlias", "prod2"),
            ("User", "a$IFS-oProxyCommand=ran"),
            ("User", "\"a -oProxyCommand=ran\""),
        ] {
            let refused = by_option(asker, keyword, value);
            let is_refused = matches!(&refused, Err(ResolveError::Call(_) | ResolveError::Config(_)));
            assert!(is_refused, "{asker:?} {keyword} {value}: {refused:?}");
        }
    }
    assert_eq!(
        by_option(Asker::Local, "HostName", "%h.example").unwrap().hop.target.address.host,
        "prod.example"
    );
    assert!(matches!(by_option(Asker::Foreign, "HostName", "evil.example"), Err(ResolveError::Call(_))));
}

#[test]
fn the_operator_lends_to_the_host_he_wrote_about() {
    let home = tempfile::tempdir().unwrap();
    let user = user(home.path(), "Host prod\n ForwardAgent yes\n SendEnv LC_*\n");
    let foreign = TargetAsk { asker: Asker::Foreign, ..ask("prod") };
    assert!(resolve(&foreign, &user).unwrap().hop.lendings.agent.is_some());
    for elsewhere in [
        TargetAsk { port: Some(2222), ..foreign.clone() },
        TargetAsk { proxy_jump: Some("evil.example".to_owned()), ..foreign.clone() },
    ] {
        assert_eq!(resolve(&elsewhere, &user).unwrap().hop.lendings, Lendings::default());
        let local = TargetAsk { asker: Asker::Local, ..elsewhere };
        assert!(resolve(&local, &user).unwrap().hop.lendings.agent.is_some());
    }
}

#[test]
fn a_file_that_somebody_else_names_leads_to_no_others() {
    let home = tempfile::tempdir().unwrap();
    let user = user(home.path(), "");
    let (chosen, secret) = (home.path().join("chosen"), home.path().join("secret"));
    std::fs::write(&secret, "Password hunter2\n").unwrap();
    let named = |asker, text: &str| {
        std::fs::write(&chosen, text).unwrap();
        resolve(&TargetAsk { asker, config: ConfigFiles::Only(chosen.clone()), ..ask("h") }, &user)
    };
    for text in [
        format!("Include {}", secret.display()),
        "IdentityFile /k".to_owned(),
        "CertificateFile /k".to_owned(),
        "IdentityAgent /s".to_owned(),
        "UserKnownHostsFile /k".to_owned(),
        "Host jump\n IdentityFile /k\nHost h\n ProxyJump jump".to_owned(),
    ] {
        let refused = named(Asker::Foreign, &text);
        assert!(refused.is_err(), "{text}");
        assert!(!format!("{refused:?}").contains("hunter2"), "{refused:?}");
        assert!(named(Asker::Local, &text).is_ok(), "{text}");
    }
    assert!(named(Asker::Foreign, "User ann\nCompression yes").is_ok());
}
