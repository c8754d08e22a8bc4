//! The tools of older systems, for `SSH_MCP_LEGACY_TOOLS`: their names, arguments and fields, as a table over the tools of
//! this version (`docs/legacy.md`).
//!
//! A call of an old tool becomes calls of new ones: its arguments, renamed, go through the same checks and functions as
//! anybody's, and its fields are taken from their structured answers. Nothing else in the product knows an old name. The
//! rows are in `first` (001 and 002) and `third` (003), what a row can say is in `row`; this file carries it out.
//!
//! A row is offered when this build and the operator's tool sets have every tool it calls, and those every argument the
//! old tool requires: so rows can stand here before their tools do.

mod first;
mod row;
mod third;

use std::{fmt::Write as _, pin::pin, time::Duration};

use rmcp::model::{CallToolResult, ContentBlock, JsonObject};
use serde_json::Value;
use ssh_mcp_core::{
    code::{Code, Effect},
    settings::LegacyTools,
};

use crate::{
    args, call,
    cx::Cx,
    failure::Failure,
    reply::{Form, Warned},
};
pub(crate) use row::Tool;
use row::{Known, Manner, Text, Told};

/// What a client is told of an older system's tools.
pub(crate) const INSTRUCTIONS: &str = "Works on other machines over SSH, under the tool names of an older system. Each \
     answer is one JSON object, as text and as structured content; an error has the same form and says in `detail` what \
     to do. End sessions that are no longer needed.";

/// The tools of a system, in the order of `tools/list`; `None` for this version's own.
pub(crate) fn tools(system: LegacyTools) -> Option<&'static [&'static Tool]> {
    match system {
        LegacyTools::Off => None,
        LegacyTools::V001 => Some(first::V001),
        LegacyTools::V002 => Some(first::V002),
        LegacyTools::V003 => Some(third::V003),
    }
}

/// The tool of this version that a version between 001 and this one had under another name, with the same arguments. Such
/// names are taken beside those of 001 and never listed.
pub(crate) fn renamed(system: LegacyTools, name: &str) -> Option<String> {
    match system {
        LegacyTools::V001 => first::renamed(name),
        LegacyTools::Off | LegacyTools::V002 | LegacyTools::V003 => None,
    }
}

/// An old answer that is to be shown.
pub(crate) struct Shown {
    fields: Vec<(&'static str, Value)>,
    text: Text,
}

impl Shown {
    /// The answer as MCP carries it.
    pub(crate) fn into_result(self, form: Form) -> CallToolResult {
        let Self { fields, text } = self;
        let text = match text {
            Text::Object => in_order(&fields),
            Text::Field(name) => match fields.iter().find(|(known, _)| *known == name) {
                Some((_, Value::String(text))) => text.clone(),
                Some((_, value)) => value.to_string(),
                None => String::new(),
            },
        };
        let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
        result.structured_content = (form == Form::Both).then(|| to_object(fields));
        result
    }
}

/// The JSON object of these fields, in this order, which a map of JSON does not keep.
fn in_order(fields: &[(&str, Value)]) -> String {
    let mut text = String::from("{");
    for (at, (name, value)) in fields.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        _ = write!(text, "{comma}{}:{value}", Value::from(*name));
    }
    text.push('}');
    text
}

fn to_object(fields: Vec<(&str, Value)>) -> Value {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Runs an old tool. `input` is the schema of its arguments.
///
/// # Errors
/// Those of the new tools; `INVALID_ARGUMENT` in the names of the old arguments.
pub(crate) async fn run(
    cx: &Cx,
    tool: &'static Tool,
    input: &JsonObject,
    arguments: JsonObject,
    peer: &str,
) -> Result<Shown, Failure> {
    let began = cx.engine.clock().now();
    let (mut asked, ignored) = args::checked(input, arguments, &[])?;
    for argument in tool.arguments {
        if let Some(default) = argument.default() {
            asked.entry(argument.name).or_insert(default);
        }
    }
    let mut calls = Calls { cx, tool, peer, asked: &asked, warnings: Vec::new() };
    let outcome = (tool.course)(&mut calls).await;
    let warnings = calls.warnings;
    let Told { first, last } = outcome.map_err(|failure| failure.with_warnings(ignored.clone()))?;
    let took = cx.engine.clock().now().saturating_sub(began);
    let known = Known { settings: cx.settings(), asked: &asked, first: &first, last: &last, took };
    let mut fields: Vec<(&'static str, Value)> = match tool.manner {
        Manner::First => Vec::new(),
        Manner::Third => vec![("ok", true.into())],
    };
    fields.extend(known.fields(tool.fields));
    let warnings: Vec<Value> = ignored.iter().map(Warned::to_value).chain(warnings).collect();
    if !warnings.is_empty() {
        fields.push(("warnings", warnings.into()));
    }
    Ok(Shown { fields, text: tool.text })
}

/// The calls that one old call is made of.
struct Calls<'a> {
    cx: &'a Cx,
    tool: &'static Tool,
    peer: &'a str,
    asked: &'a JsonObject,
    warnings: Vec<Value>,
}

impl Calls<'_> {
    /// The first call, with the arguments as the table translates them.
    async fn first(&mut self) -> Result<JsonObject, Failure> {
        let tool = self.tool.main();
        let arguments = self.arguments(tool)?;
        self.call_with(self.cx, tool, arguments).await
    }

    /// The same, given up after `time`; a wait that is given up answers what there is.
    async fn first_within(&mut self, time: Duration) -> Result<JsonObject, Failure> {
        let tool = self.tool.main();
        let arguments = self.arguments(tool)?;
        self.call_within(time, tool, arguments).await
    }

    /// A further call.
    async fn then(&mut self, tool: &'static str, arguments: Value) -> Result<JsonObject, Failure> {
        self.call_with(self.cx, tool, object(arguments)).await
    }

    /// The same, given up after `time`.
    async fn then_within(
        &mut self,
        time: Duration,
        tool: &'static str,
        arguments: Value,
    ) -> Result<JsonObject, Failure> {
        self.call_within(time, tool, object(arguments)).await
    }

    /// An argument that is a number of seconds.
    fn seconds(&self, name: &str) -> Duration {
        let seconds = self.asked.get(name).and_then(Value::as_f64).unwrap_or_default();
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// Whether nobody waits for the answer any more.
    fn is_called_off(&self) -> bool {
        self.cx.progress.is_called_off()
    }

    /// The arguments that the table has for the call of a tool.
    fn arguments(&self, tool: &'static str) -> Result<JsonObject, Failure> {
        let new = self.cx.catalogue.own(tool).ok_or_else(|| not_offered(tool))?;
        Ok(self.tool.translate(self.asked, tool, &new.input))
    }

    async fn call_within(
        &mut self,
        time: Duration,
        tool: &'static str,
        arguments: JsonObject,
    ) -> Result<JsonObject, Failure> {
        let outer = self.cx;
        let enough = outer.progress.child();
        let cx = Cx {
            engine: outer.engine.clone(),
            catalogue: outer.catalogue.clone(),
            owner: outer.owner.clone(),
            push: outer.push.clone(),
            progress: outer.progress.until(enough.clone()),
            asking: outer.asking.clone(),
        };
        let clock = outer.engine.clock();
        let deadline = clock.now().saturating_add(time);
        let mut call = pin!(self.call_with(&cx, tool, arguments));
        tokio::select! {
            biased;
            done = &mut call => return done,
            () = clock.sleep_until(deadline) => enough.cancel(),
        }
        call.await
    }

    async fn call_with(
        &mut self,
        cx: &Cx,
        tool: &'static str,
        arguments: JsonObject,
    ) -> Result<JsonObject, Failure> {
        let new = cx.catalogue.own(tool).ok_or_else(|| not_offered(tool))?;
        let reply = call::perform(cx, new.row, &new.input, arguments, self.peer).await?;
        let mut facts = match reply.into_result(new.row.name, Form::Both).structured_content {
            Some(Value::Object(facts)) => facts,
            Some(_) | None => JsonObject::new(),
        };
        if let Some(Value::Array(warnings)) = facts.remove("warnings") {
            self.warnings.extend(warnings);
        }
        Ok(facts)
    }
}

/// The longest wait of one call.
const WAIT: Duration = Duration::from_secs(300);

/// One call and no more.
async fn once(calls: &mut Calls<'_>) -> Result<Told, Failure> {
    Ok(Told { first: calls.first().await?, last: JsonObject::new() })
}

fn is(facts: &JsonObject, status: &str) -> bool {
    facts.get("status").is_some_and(|word| word == status)
}

/// The client no longer waits for what it asked for.
fn called_off() -> Failure {
    Failure::new(Code::ChannelFailed, "the client called the request off").with_effect(Effect::Unknown)
}

/// The catalogue offers a row only where it has all its tools, so this is never seen.
fn not_offered(tool: &str) -> Failure {
    Failure::new(Code::InternalError, format!("this server does not have {tool}"))
}

fn object(value: Value) -> JsonObject {
    match value {
        Value::Object(object) => object,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            JsonObject::new()
        }
    }
}

#[cfg(test)]
mod tests;
