//! What the arguments of everything that runs on a host have in common: directory, variables, shell, and input.
//!
//! Used by the command tools and the shell tools; the command line itself is made by [`Context`].

use std::collections::BTreeMap;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use ssh_mcp_core::{
    quote::{Context, EnvName},
    text,
};

use crate::{args, failure::Failure};

/// Where and with what something runs; to be flattened into the arguments of a tool.
#[derive(Default, Deserialize, JsonSchema)]
pub(super) struct ContextArgs {
    #[schemars(length(min = 1))]
    cwd: Option<String>,
    env: Option<BTreeMap<String, String>>,
    /// Instead of the login shell.
    #[schemars(length(min = 1))]
    shell: Option<String>,
}

/// Rare arguments of what runs on a host, which its listing leaves to `docs/tools.md`, "Arguments that are not listed".
pub(super) const UNSHOWN: &[&str] = &["shell", "input_base64", "grace_ms"];

impl ContextArgs {
    /// The context these arguments ask for.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a name that no variable can have, and for NUL anywhere.
    pub(super) fn parse(self) -> Result<Context, Failure> {
        let Self { cwd, env, shell } = self;
        for (field, text) in [("cwd", &cwd), ("shell", &shell)] {
            text.as_deref().map_or(Ok(()), |text| without_nul(field, text))?;
        }
        let env = env.unwrap_or_default().into_iter().map(|(name, value)| {
            let parsed = EnvName::parse(&name).ok_or_else(|| {
                let shown = text::cut(&text::one_line(&name), 80).into_owned();
                Failure::argument(format!(
                    "a name in env must be letters, digits and underscores, and not begin with a digit; got {shown:?}"
                ))
            })?;
            without_nul(&format!("env.{name}"), &value)?;
            Ok((parsed, value))
        });
        Ok(Context { cwd, env: env.collect::<Result<_, Failure>>()?, shell })
    }
}

/// Refuses NUL, which ends a text in every program and would cut it short unseen.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(crate) fn without_nul(field: &str, text: &str) -> Result<(), Failure> {
    match text.contains('\0') {
        false => Ok(()),
        true => {
            let shown = args::shown(field, &Value::from(text));
            Err(Failure::argument(format!("{field} must be a text without NUL characters; got {shown}")))
        }
    }
}

/// Input given as text or in base64, at most `most` bytes; none if neither was given.
///
/// # Errors
/// `INVALID_ARGUMENT` if both are given, if the second cannot be decoded, or if it is too long.
pub(super) fn input(
    text: Option<String>,
    base64: Option<String>,
    most: usize,
) -> Result<Option<Bytes>, Failure> {
    let (field, bytes) = match (text, base64) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(Failure::argument("input must not be given together with input_base64; got both"));
        }
        (Some(text), None) => ("input", text.into_bytes()),
        (None, Some(mut text)) => {
            // Encoders break lines; that is no mistake of the caller's.
            text.retain(|c| !c.is_ascii_whitespace());
            let bytes = BASE64.decode(&text).map_err(|error| {
                Failure::argument(format!("input_base64 must be base64; got a text: {error}"))
            })?;
            ("input_base64", bytes)
        }
    };
    if bytes.len() > most {
        return Err(Failure::argument(format!("{field} must be at most {most} bytes; got {}", bytes.len())));
    }
    Ok(Some(bytes.into()))
}

/// The standard alphabet (RFC 4648, 4), with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: Option<&str>, base64: Option<&str>, expected: Result<Option<&[u8]>, &str>) {
        let got = input(text.map(Into::into), base64.map(Into::into), 5);
        match (got, expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got.as_deref(), expected, "{text:?} {base64:?}"),
            (Err(got), Err(expected)) => assert_eq!(got.reason, expected),
            (got, expected) => panic!("{got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn input_is_text_or_base64_and_bounded() {
        check(None, None, Ok(None));
        check(Some(""), None, Ok(Some(b"")));
        check(Some("äb\n"), None, Ok(Some("äb\n".as_bytes())));
        check(None, Some("AP8K"), Ok(Some(b"\x00\xff\x0a")));
        check(None, Some("AP\n8= "), Ok(Some(b"\x00\xff")));
        check(None, Some("AP8"), Ok(Some(b"\x00\xff")));
        check(Some("a"), Some("YQ"), Err("input must not be given together with input_base64; got both"));
        check(Some("123456"), None, Err("input must be at most 5 bytes; got 6"));
        check(None, Some("MTIzNDU2"), Err("input_base64 must be at most 5 bytes; got 6"));
        check(None, Some("?"), Err("input_base64 must be base64; got a text: Invalid symbol 63, offset 0."));
    }

    #[test]
    fn contexts_that_are_refused_name_the_field_and_never_a_value_of_env() {
        let cwd = ContextArgs { cwd: Some("a\0".into()), ..ContextArgs::default() };
        assert_eq!(
            cwd.parse().unwrap_err().reason,
            r#"cwd must be a text without NUL characters; got the text "a\u0000""#
        );
        let env = |name: &str, value: &str| ContextArgs {
            env: Some([(name.to_owned(), value.to_owned())].into()),
            ..ContextArgs::default()
        };
        assert_eq!(
            env("1A", "x").parse().unwrap_err().reason,
            r#"a name in env must be letters, digits and underscores, and not begin with a digit; got "1A""#
        );
        let nul = env("A", "secret\0").parse().unwrap_err().reason;
        assert_eq!(nul, "env.A must be a text without NUL characters; got a text");
        assert_eq!(env("A_1", "it's").parse().unwrap().env.len(), 1);
    }
}
