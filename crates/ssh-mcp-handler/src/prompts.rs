//! MCP prompts: recipes a person picks, filled with what they gave (`docs/prompts.md`).
//!
//! The prompts themselves, one row each, are in [`recipes`]. Here is what all have in common: which are listed, how their
//! arguments are read, and how a recipe becomes a message.
//!
//! *Invariant:* a prompt is listed only if every tool its recipe names is.

mod recipes;

use std::{collections::BTreeMap, fmt::Write as _};

use rmcp::model::{ErrorData, GetPromptResult, JsonObject, Prompt, PromptArgument, PromptMessage, Role};
use serde_json::Value;

use crate::failure;

/// The prompts all of whose tools are listed, in order.
pub(crate) fn list(is_listed: &dyn Fn(&str) -> bool) -> Vec<Prompt> {
    rows(is_listed)
        .map(|row| {
            let arguments = row.arguments.iter().map(|argument| {
                PromptArgument::new(argument.name)
                    .with_description(argument.description)
                    .with_required(argument.need == Need::Required)
            });
            Prompt::new(row.name, Some(row.description), Some(arguments.collect())).with_title(row.title)
        })
        .collect()
}

/// The recipe of a listed prompt, as one message of the user's.
///
/// # Errors
/// Invalid params for a name that is not listed, a required argument that is missing, and a value that cannot be used.
pub(crate) fn get(
    is_listed: &dyn Fn(&str) -> bool,
    name: &str,
    arguments: &JsonObject,
) -> Result<GetPromptResult, ErrorData> {
    let row = rows(is_listed)
        .find(|row| row.name == name)
        .ok_or_else(|| failure::bad_params("name", "the name of a prompt that prompts/list shows"))?;
    let recipe = (row.recipe)(&Given::read(row, arguments)?)?;
    let message = PromptMessage::new_text(Role::User, recipe.to_text());
    Ok(GetPromptResult::new(vec![message]).with_description(row.description))
}

/// Whether a prompt is listed and has that argument.
pub(crate) fn has_argument(is_listed: &dyn Fn(&str) -> bool, prompt: &str, argument: &str) -> bool {
    rows(is_listed)
        .filter(|row| row.name == prompt)
        .any(|row| row.arguments.iter().any(|known| known.name == argument))
}

/// What a lane does when its reader falls behind, the default first.
pub(crate) const LAG_POLICIES: [&str; 4] = ["snapshot", "block_slow", "drop_oldest", "drop_newest"];

fn rows(is_listed: &dyn Fn(&str) -> bool) -> impl Iterator<Item = &'static Row> {
    recipes::ROWS.iter().filter(move |row| row.tools.iter().all(|tool| is_listed(tool)))
}

/// Everything the product knows about a prompt.
struct Row {
    name: &'static str,
    /// Its name for people.
    title: &'static str,
    /// What picking it leads to.
    description: &'static str,
    arguments: &'static [Argument],
    /// Every tool the recipe may name.
    tools: &'static [&'static str],
    recipe: fn(&Given<'_>) -> Result<Recipe, ErrorData>,
}

struct Argument {
    name: &'static str,
    description: &'static str,
    need: Need,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Required,
    Optional,
}

impl Argument {
    const fn required(name: &'static str, description: &'static str) -> Self {
        Self { name, description, need: Need::Required }
    }

    const fn optional(name: &'static str, description: &'static str) -> Self {
        Self { name, description, need: Need::Optional }
    }
}

/// What was given for the arguments of a row. An empty text is none: hosts send the fields nobody filled in.
struct Given<'a> {
    texts: BTreeMap<&'static str, &'a str>,
}

impl<'a> Given<'a> {
    /// Arguments the row does not have are passed over.
    fn read(row: &Row, arguments: &'a JsonObject) -> Result<Self, ErrorData> {
        let mut texts = BTreeMap::new();
        for Argument { name, need, .. } in row.arguments {
            match (arguments.get(*name), need) {
                (Some(Value::String(text)), _) if !text.is_empty() => _ = texts.insert(*name, text.as_str()),
                (None | Some(Value::Null | Value::String(_)), Need::Optional) => {}
                (None | Some(Value::Null | Value::String(_)), Need::Required) => {
                    return Err(failure::bad_params(name, "a text that is not empty"));
                }
                (Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)), _) => {
                    return Err(failure::bad_params(name, "a text, also where it is a number"));
                }
            }
        }
        Ok(Self { texts })
    }

    /// The text of an argument, if any was given.
    fn get(&self, name: &str) -> Option<&'a str> {
        self.texts.get(name).copied()
    }

    /// The text of a required argument.
    fn text(&self, name: &str) -> &'a str {
        // `read` has refused what lacks one.
        self.get(name).unwrap_or_default()
    }

    fn number(&self, name: &str, default: u64) -> Result<u64, ErrorData> {
        self.get(name).map_or(Ok(default), |text| {
            // `parse` alone would take a sign.
            let digits = Some(text.trim()).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            digits
                .and_then(|digits| digits.parse().ok())
                .ok_or_else(|| failure::bad_params(name, "a whole number from 0, as a text"))
        })
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool, ErrorData> {
        match self.get(name).map(|text| text.trim().to_ascii_lowercase()).as_deref() {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(_) => Err(failure::bad_params(name, "true or false")),
        }
    }

    /// The word of [`LAG_POLICIES`] that was given, in any letter case and with either dash; else the first.
    fn lag_policy(&self) -> Result<&'static str, ErrorData> {
        let [default, ..] = LAG_POLICIES;
        self.get("lag_policy").map_or(Ok(default), |text| {
            let word = text.trim().to_ascii_lowercase().replace('-', "_");
            LAG_POLICIES.into_iter().find(|policy| *policy == word).ok_or_else(|| {
                failure::bad_params("lag_policy", &format!("one of {}", LAG_POLICIES.join(", ")))
            })
        })
    }
}

/// What to do, in the order it is read.
struct Recipe {
    aim: &'static str,
    steps: Vec<String>,
    if_it_fails: Vec<String>,
    clean_up: Vec<String>,
}

impl Recipe {
    fn to_text(&self) -> String {
        let mut text = format!("{}\n\nSteps:\n", self.aim);
        for (at, step) in self.steps.iter().enumerate() {
            _ = writeln!(text, "{}. {step}", at + 1);
        }
        for (title, items) in [("If it fails", &self.if_it_fails), ("Clean up", &self.clean_up)] {
            _ = writeln!(text, "\n{title}:");
            items.iter().for_each(|item| _ = writeln!(text, "- {item}"));
        }
        text
    }
}

#[cfg(test)]
mod tests;
