//! What a call may lay before the files, and what it may not.

use openssh_files::config::{OverrideError, Overrides};

#[track_caller]
fn check_arguments(arguments: &[&str], expected: Result<(), OverrideError>) {
    assert_eq!(Overrides::default().arguments(arguments), expected, "{arguments:?}");
}

fn blocked(name: &str) -> Result<(), OverrideError> {
    Err(OverrideError::Blocked(name.to_owned()))
}

#[test]
fn ports_and_programs_are_not_for_calls() {
    for flag in ["-L", "-R", "-D", "-W"] {
        check_arguments(&[flag, "8080:h:80"], blocked(flag));
        check_arguments(&[&format!("{flag}8080:h:80")], blocked(flag));
        check_arguments(&["-p", "22", &format!("-4C{}x", &flag[1..])], blocked(flag));
    }
    for name in [
        "ProxyCommand",
        "LocalCommand",
        "PermitLocalCommand",
        "LocalForward",
        "RemoteForward",
        "DynamicForward",
        "KnownHostsCommand",
        "PKCS11Provider",
        "SmartcardDevice",
        "SecurityKeyProvider",
        "XAuthLocation",
    ] {
        for value in ["x", "none", "no", "", "\"open"] {
            assert_eq!(Overrides::default().option(name, value), blocked(name), "{name} {value}");
        }
        let upper = name.to_ascii_uppercase();
        check_arguments(&["-o", &format!("{upper}=x")], blocked(name));
        check_arguments(&[&format!("-o{name} x")], blocked(name));
        check_arguments(&["-o", &format!(" \"{name}\" x")], blocked(name));
        check_arguments(&["-C4o", &format!("{name}\t=x")], blocked(name));
    }
}

#[test]
fn an_option_is_one_line() {
    for (keyword, value) in [("User", "a\nProxyCommand x"), ("User a\nProxyCommand", "x"), ("User", "a\0")] {
        assert!(Overrides::default().option(keyword, value).is_err(), "{keyword:?} {value:?}");
    }
    for keyword in ["Host", "match", "INCLUDE"] {
        assert!(Overrides::default().option(keyword, "x").is_err(), "{keyword}");
    }
    for keyword in ["BatchMode", "LogLevel", "ControlMaster", "Nonsense"] {
        assert_eq!(Overrides::default().option(keyword, "x y"), Ok(()), "{keyword}");
    }
}

#[test]
fn arguments_without_a_meaning_are_named() {
    for argument in ["-N", "-x", "host", "-", "--", "", "-Nf", "-é"] {
        check_arguments(&[argument], Err(OverrideError::Unknown(argument.to_owned())));
    }
    for flag in ["-p", "-i", "-l", "-J", "-F", "-o"] {
        check_arguments(&[flag], Err(OverrideError::NoValue(flag.to_owned())));
        check_arguments(&[flag, ""], Err(OverrideError::NoValue(flag.to_owned())));
    }
    check_arguments(&["-J", "a", "-Jb"], Err(OverrideError::SecondJump));
}

#[test]
fn the_file_of_a_call() {
    let mut overrides = Overrides::default();
    overrides.arguments(["-F", "a", "-vFb"]).unwrap();
    assert_eq!(overrides.config_file.as_deref(), Some("a"));
}
