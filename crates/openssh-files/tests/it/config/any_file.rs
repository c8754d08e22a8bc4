//! What holds for any bytes taken as a configuration: shared by the fuzz target `ssh_config` and the replay of its corpus.

use openssh_files::config::{Config, LoadError, Local, Overrides, Target};

/// Panics if the text makes the reader break one of its promises.
pub(crate) fn check(text: &[u8]) {
    let lines = text.split(|&byte| byte == b'\n').count();
    let config = match Config::parse("c", text) {
        Ok(config) => config,
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "{error}");
            let LoadError::Line { at, .. } = error else { panic!("no file was read: {error}") };
            assert!((1..=lines).contains(&at.line), "{at}");
            return;
        }
    };
    let local = Local {
        home: "/home/me",
        user: "me",
        uid: 1000,
        host_name: "box.example",
        environment: &|name| (name == "SET").then(|| "value".to_owned()),
        home_of: &|name| (name == "you").then(|| "/home/you".to_owned()),
        exec: &|command| Ok(command.len() % 2 == 0),
    };
    for host in ["h", "db.example", "10.1.2.3", "::1"] {
        let Ok(resolved) = config.resolve(host, &Overrides::default(), &local) else { continue };
        let again = config.resolve(host, &Overrides::default(), &local).ok();
        assert_eq!(again.as_ref(), Some(&resolved));
        let printed = resolved.to_lines(|_| None);
        assert!(printed.starts_with(&format!("host {host}\n")), "{printed}");
        assert_ne!(resolved.port, 0);
    }
    let text = String::from_utf8_lossy(text);
    if let Ok(target) = Target::parse(&text) {
        assert!(!target.host.is_empty() && !target.host.starts_with('-'), "{target:?}");
    }
    let mut overrides = Overrides::default();
    if overrides.arguments(text.split_whitespace()).is_ok() {
        let _ = config.resolve("h", &overrides, &local);
    }
}
