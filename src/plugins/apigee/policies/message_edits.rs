//! `Copy`, `Remove`, `Add`, `Set` and `AssignVariable` at work.
//!
//! Owns what AssignMessage, RaiseFault and ServiceCallout do to a message. Refuses to decide which message that is.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};

use crate::dialects::apigee::message::{Message, Part, Property, WriteError};
use crate::dialects::apigee::policies::message_edits as config;
use crate::dialects::apigee::policies::message_edits::Names;
use crate::dialects::apigee::policies::texts;
use crate::dialects::apigee::template::{RenderError, Template, Unresolved};
use crate::dialects::apigee::variables::{MessageHandle, Value, VariableName};
use crate::plugins::apigee::flow::context::PolicyFault;
use crate::plugins::apigee::flow::scope::Scope;

/// Edits with their templates parsed.
pub(crate) struct MessageEdits {
    steps: Vec<Edit>,
    unresolved: Unresolved,
    /// `AssignMessage[NAME]`
    label: Box<str>,
    /// `steps.assignmessage`
    codes: &'static str,
}

/// The message that is edited.
pub(crate) enum Target<'m> {
    /// One of the scope's.
    Held(MessageHandle),
    /// One that nobody else sees yet.
    Own(&'m mut Message),
}

enum Edit {
    Copy {
        /// None: the current message.
        source: Option<VariableName>,
        parts: config::Copy,
        headers: Option<NameList>,
        query_parameters: Option<NameList>,
        form_parameters: Option<NameList>,
    },
    Remove {
        headers: Option<NameList>,
        query_parameters: Option<NameList>,
        form_parameters: Option<NameList>,
        payload: bool,
    },
    Add {
        headers: Vec<Pair>,
        query_parameters: Vec<Pair>,
        form_parameters: Vec<Pair>,
    },
    Set(Box<Set>),
    Assign(Box<Assign>),
}

/// `None` is all of them.
type NameList = Option<Vec<Template>>;

struct Pair {
    name: Template,
    /// What a name without variables stands for.
    property: Option<Property>,
    value: Template,
}

struct Set {
    headers: Vec<Pair>,
    query_parameters: Vec<Pair>,
    form_parameters: Vec<Pair>,
    payload: Option<(Template, Option<Template>)>,
    /// Verb, version, path, status, reason: what is written there.
    properties: Vec<(Property, Template)>,
}

struct Assign {
    name: VariableName,
    reference: Option<VariableName>,
    template: Option<Template>,
    template_reference: Option<VariableName>,
    value: Option<String>,
}

/// What a name stands for on a message.
#[derive(Clone, Copy)]
enum Kind {
    Header,
    Query,
    Form,
}

impl MessageEdits {
    /// Parses the templates. `label` is what messages of faults begin with, `codes` what their codes begin with.
    pub(crate) fn link(
        edits: &config::Edits,
        label: String,
        codes: &'static str,
    ) -> Result<Self, String> {
        Ok(Self {
            steps: edits
                .steps
                .iter()
                .map(Edit::link)
                .collect::<Result<_, _>>()?,
            unresolved: if edits.ignore_unresolved {
                Unresolved::Empty
            } else {
                Unresolved::Fails
            },
            label: label.into(),
            codes,
        })
    }

    /// Whether a message is needed at all.
    pub(crate) fn touch_messages(&self) -> bool {
        !self
            .steps
            .iter()
            .all(|step| matches!(step, Edit::Assign(_)))
    }

    /// Whether a body is set.
    pub(crate) fn set_payload(&self) -> bool {
        self.steps
            .iter()
            .any(|step| matches!(step, Edit::Set(set) if set.payload.is_some()))
    }

    /// Whether a body is set or copied.
    pub(crate) fn give_payload(&self) -> bool {
        self.set_payload()
            || self
                .steps
                .iter()
                .any(|step| matches!(step, Edit::Copy { parts, .. } if parts.payload))
    }

    /// Makes the edits, in order. Without a target only variables are set.
    ///
    /// # Errors
    /// The policy's fault.
    pub(crate) fn apply(
        &self,
        scope: &mut Scope,
        mut target: Option<Target<'_>>,
    ) -> Result<(), PolicyFault> {
        for step in &self.steps {
            match (step, &mut target) {
                (Edit::Assign(assign), _) => self.assign(assign, scope)?,
                (_, None) => {}
                (step, Some(target)) => self.edit(step, scope, target)?,
            }
        }
        Ok(())
    }

    fn edit(
        &self,
        step: &Edit,
        scope: &mut Scope,
        target: &mut Target<'_>,
    ) -> Result<(), PolicyFault> {
        match step {
            Edit::Copy { .. } => self.copy(step, scope, target),
            Edit::Remove {
                headers,
                query_parameters,
                form_parameters,
                payload,
            } => {
                for (kind, list) in [
                    (Kind::Header, headers),
                    (Kind::Query, query_parameters),
                    (Kind::Form, form_parameters),
                ] {
                    self.remove(kind, list.as_ref(), scope, target)?;
                }
                if *payload && let Some(message) = target.message(scope) {
                    message.replace_content(Bytes::new());
                }
                Ok(())
            }
            Edit::Add {
                headers,
                query_parameters,
                form_parameters,
            } => {
                for (kind, pairs) in [
                    (Kind::Header, headers),
                    (Kind::Query, query_parameters),
                    (Kind::Form, form_parameters),
                ] {
                    for pair in pairs {
                        let name = self.render(&pair.name, scope)?.into_owned();
                        let value = self.value(pair, scope)?;
                        self.changed(scope, target, |message| match kind {
                            Kind::Header => message.add_header(&name, &value),
                            Kind::Query if !message.is_request() => Err(not_a_request(&name)),
                            Kind::Query => {
                                message.add_query_parameter(&name, &value);
                                Ok(())
                            }
                            Kind::Form => message.add_form_parameter(&name, &value),
                        })?;
                    }
                }
                Ok(())
            }
            Edit::Set(set) => self.set(set, scope, target),
            Edit::Assign(_) => Ok(()),
        }
    }

    fn set(
        &self,
        set: &Set,
        scope: &mut Scope,
        target: &mut Target<'_>,
    ) -> Result<(), PolicyFault> {
        for (kind, pairs) in [
            (Kind::Header, &set.headers),
            (Kind::Query, &set.query_parameters),
            (Kind::Form, &set.form_parameters),
        ] {
            for pair in pairs {
                let property = match &pair.property {
                    Some(property) => Cow::Borrowed(property),
                    None => Cow::Owned(property_of(kind, &self.render(&pair.name, scope)?)),
                };
                let value = self.value(pair, scope)?;
                self.changed(scope, target, |message| message.write(&property, &value))?;
            }
        }
        if let Some((payload, content_type)) = &set.payload {
            let text = match payload.fixed() {
                Some(text) => Bytes::copy_from_slice(text.as_bytes()),
                None => Bytes::from(self.render(payload, scope)?.into_owned()),
            };
            let content_type = content_type
                .as_ref()
                .map(|template| self.render(template, scope))
                .transpose()?;
            let content_type = content_type.map(Cow::into_owned);
            self.changed(scope, target, |message| {
                if let Some(content_type) = content_type {
                    message.write(&Property::Header(CONTENT_TYPE, Part::First), &content_type)?;
                }
                message.replace_content(text);
                Ok(())
            })?;
        }
        for (property, template) in &set.properties {
            let value = self.render(template, scope)?.into_owned();
            // An unresolved status leaves the one that is there.
            if value.is_empty()
                && matches!(
                    property,
                    Property::StatusCode | Property::Verb | Property::Version
                )
            {
                continue;
            }
            if *property == Property::StatusCode {
                let is_status = value
                    .trim()
                    .parse()
                    .is_ok_and(|status: u16| (100..=599).contains(&status));
                if !is_status {
                    let message =
                        format!("{}: '{value}' is not a status from 100 to 599", self.label);
                    return Err(self.fault("InvalidStatusCode", message));
                }
            }
            self.changed(scope, target, |message| message.write(property, &value))?;
        }
        Ok(())
    }

    fn copy(
        &self,
        step: &Edit,
        scope: &mut Scope,
        target: &mut Target<'_>,
    ) -> Result<(), PolicyFault> {
        let Edit::Copy {
            source,
            parts,
            headers,
            query_parameters,
            form_parameters,
        } = step
        else {
            return Ok(());
        };
        let handle = match source {
            None => Some(scope.current()),
            Some(name) => match (scope.handle(name.as_str()), scope.owned(name)) {
                (Some(handle), _) => Some(handle),
                (None, Some(_)) => {
                    let message = format!(
                        "{}: value of variable {name} is not of type Message",
                        self.label
                    );
                    return Err(self.fault("VariableOfNonMsgType", message));
                }
                (None, None) => None,
            },
        };
        let Some(from) = handle.and_then(|handle| scope.message(handle)) else {
            return match self.unresolved {
                Unresolved::Empty => Ok(()),
                Unresolved::Fails => {
                    Err(self.unresolvable(source.as_ref().map_or("message", VariableName::as_str)))
                }
            };
        };
        // The bytes of the body are shared, so this copies heads only.
        let from = from.clone();
        for (kind, list) in [
            (Kind::Header, headers),
            (Kind::Query, query_parameters),
            (Kind::Form, form_parameters),
        ] {
            let Some(list) = list else {
                continue;
            };
            let list = match list {
                None => None,
                Some(names) => {
                    let names = names
                        .iter()
                        .map(|name| self.render(name, scope).map(Cow::into_owned));
                    Some(names.collect::<Result<Vec<_>, _>>()?)
                }
            };
            self.changed(scope, target, |message| {
                copy_named(kind, list, &from, message)
            })?;
        }
        self.changed(scope, target, |message| {
            copy_parts(parts, &from, message);
            Ok(())
        })
    }

    fn remove(
        &self,
        kind: Kind,
        list: Option<&NameList>,
        scope: &mut Scope,
        target: &mut Target<'_>,
    ) -> Result<(), PolicyFault> {
        let Some(list) = list else {
            return Ok(());
        };
        let Some(names) = list else {
            return self.changed(scope, target, |message| {
                match kind {
                    Kind::Header => message.headers.clear(),
                    Kind::Query => message.query = None,
                    Kind::Form if message.form().is_some() => message.replace_content(Bytes::new()),
                    Kind::Form => {}
                }
                Ok(())
            });
        };
        for name in names {
            let name = self.render(name, scope)?.into_owned();
            let property = property_of(kind, &name);
            self.changed(scope, target, |message| match property {
                Property::ImpossibleHeader(_) => Ok(()),
                property => message.remove(&property).map(drop),
            })?;
        }
        Ok(())
    }

    fn assign(&self, assign: &Assign, scope: &mut Scope) -> Result<(), PolicyFault> {
        let mut value = assign.reference.as_ref().and_then(|name| scope.owned(name));
        if value.is_none()
            && let Some(template) = &assign.template
        {
            value = Some(Value::from(self.render(template, scope)?.into_owned()));
        }
        if value.is_none()
            && let Some(name) = &assign.template_reference
            && let Some(text) = scope.text(name)
        {
            let template = Template::parse(&text).map_err(|error| {
                self.fault("InvalidTemplate", format!("{}: {error}", self.label))
            })?;
            value = Some(Value::from(self.render(&template, scope)?.into_owned()));
        }
        if value.is_none() {
            value = assign.value.clone().map(Value::from);
        }
        let Some(value) = value else {
            return match (
                self.unresolved,
                assign
                    .reference
                    .as_ref()
                    .or(assign.template_reference.as_ref()),
            ) {
                (Unresolved::Fails, Some(name)) => Err(self.unresolvable(name.as_str())),
                _ => Ok(()),
            };
        };
        scope
            .set(&assign.name, value)
            .map_err(|error| PolicyFault::of_write(self.codes, &error))
    }

    fn value(&self, pair: &Pair, scope: &Scope) -> Result<String, PolicyFault> {
        let value = self.render(&pair.value, scope)?;
        // A template in double quotes loses them outside of payloads.
        let quoted = (pair.value.fixed().is_none() && value.len() > 1)
            .then(|| {
                value
                    .strip_prefix('"')
                    .and_then(|value| value.strip_suffix('"'))
            })
            .flatten();
        Ok(match quoted {
            Some(quoted) => quoted.to_owned(),
            None => value.into_owned(),
        })
    }

    fn render<'t>(
        &self,
        template: &'t Template,
        scope: &'t Scope,
    ) -> Result<Cow<'t, str>, PolicyFault> {
        template
            .render(scope, self.unresolved)
            .map_err(|error| match error {
                RenderError::Unresolved(name) => self.unresolvable(&name),
                other => self.fault("ExecutionFailed", format!("{}: {other}", self.label)),
            })
    }

    fn changed(
        &self,
        scope: &mut Scope,
        target: &mut Target<'_>,
        change: impl FnOnce(&mut Message) -> Result<(), WriteError>,
    ) -> Result<(), PolicyFault> {
        let Some(message) = target.message(scope) else {
            return Ok(());
        };
        change(message).map_err(|error| PolicyFault::of_write(self.codes, &error))
    }

    fn unresolvable(&self, name: &str) -> PolicyFault {
        self.fault(
            "UnresolvedVariable",
            format!("{}: unable to resolve variable {name}", self.label),
        )
    }

    fn fault(&self, name: &str, message: String) -> PolicyFault {
        PolicyFault::new(500, format!("{}.{name}", self.codes), message)
    }
}

impl Target<'_> {
    fn message<'s>(&'s mut self, scope: &'s mut Scope) -> Option<&'s mut Message> {
        match self {
            Self::Held(handle) => scope.message_mut(*handle),
            Self::Own(message) => Some(message),
        }
    }
}

fn not_a_request(name: &str) -> WriteError {
    WriteError::Unfit {
        property: format!("queryparam.{name}").into(),
        reason: "the message is a response",
    }
}

/// The property that a name with an optional index stands for: `X.2` is the second value.
fn property_of(kind: Kind, name: &str) -> Property {
    let (bare, part) = match name.rsplit_once('.') {
        Some((bare, index)) if !bare.is_empty() => match index.parse() {
            Ok(index) => (bare, Part::Number(index)),
            Err(_) => (name, Part::First),
        },
        _ => (name, Part::First),
    };
    match kind {
        Kind::Header => Property::header(bare, part),
        Kind::Query => Property::QueryParameter(bare.into(), part),
        Kind::Form => Property::FormParameter(bare.into(), part),
    }
}

/// Copies values by name; `None` copies all.
fn copy_named(
    kind: Kind,
    names: Option<Vec<String>>,
    from: &Message,
    to: &mut Message,
) -> Result<(), WriteError> {
    use crate::dialects::apigee::message::parameters::Parameters;
    let raw = match kind {
        Kind::Header => {
            let names: Vec<HeaderName> = match names {
                None => from.headers.keys().cloned().collect(),
                Some(names) => names
                    .iter()
                    .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
                    .collect(),
            };
            for name in names {
                let values: Vec<HeaderValue> =
                    from.headers.get_all(&name).iter().cloned().collect();
                if !values.is_empty() {
                    to.headers.remove(&name);
                }
                for value in values {
                    to.headers.append(&name, value);
                }
            }
            return Ok(());
        }
        Kind::Query if !to.is_request() => return Ok(()),
        Kind::Query => from.query.clone().unwrap_or_default(),
        Kind::Form => from.form().unwrap_or_default().to_owned(),
    };
    let parameters = Parameters(&raw);
    let names = match names {
        None => parameters
            .names()
            .into_iter()
            .map(Cow::into_owned)
            .collect(),
        Some(names) => names,
    };
    for name in names {
        for (index, value) in parameters.values(&name).enumerate() {
            let part = if index == 0 {
                Part::First
            } else {
                Part::Number(index + 1)
            };
            let property = match kind {
                Kind::Form => Property::FormParameter(name.as_str().into(), part),
                _ => Property::QueryParameter(name.as_str().into(), part),
            };
            to.write(&property, &value)?;
        }
    }
    Ok(())
}

fn copy_parts(parts: &config::Copy, from: &Message, to: &mut Message) {
    if parts.payload {
        to.replace_content(from.content.clone());
        // A body without its type is not the same body.
        if let Some(kind) = from
            .headers
            .get(CONTENT_TYPE)
            .filter(|_| !to.headers.contains_key(CONTENT_TYPE))
        {
            to.headers.insert(CONTENT_TYPE, kind.clone());
        }
    }
    if parts.version {
        to.version = from.version;
    }
    if from.is_request() && to.is_request() {
        if parts.verb {
            to.verb = from.verb.clone();
        }
        if parts.path {
            to.path.clone_from(&from.path);
        }
    }
    if !from.is_request() && !to.is_request() {
        if parts.status {
            to.status = from.status;
        }
        if parts.reason {
            to.reason.clone_from(&from.reason);
        }
    }
}

fn template(text: &str) -> Result<Template, String> {
    Template::parse(text).map_err(|error| error.to_string())
}

fn pairs(kind: Kind, pairs: &[texts::Pair]) -> Result<Vec<Pair>, String> {
    let linked = pairs.iter().map(|pair| {
        let name = template(&pair.name)?;
        Ok(Pair {
            property: name.fixed().map(|name| property_of(kind, name)),
            name,
            value: template(&pair.value)?,
        })
    });
    linked.collect()
}

fn name_list(names: Option<&Names>) -> Result<Option<NameList>, String> {
    Ok(match names {
        None => None,
        Some(Names::All) => Some(None),
        Some(Names::Some(names)) => Some(Some(
            names
                .iter()
                .map(|name| template(name))
                .collect::<Result<_, _>>()?,
        )),
    })
}

impl Edit {
    fn link(edit: &config::Edit) -> Result<Self, String> {
        Ok(match edit {
            config::Edit::Copy(copy) => Self::Copy {
                source: copy.source.as_deref().map(VariableName::new),
                headers: name_list(copy.headers.as_ref())?,
                query_parameters: name_list(copy.query_parameters.as_ref())?,
                form_parameters: name_list(copy.form_parameters.as_ref())?,
                parts: copy.as_ref().clone(),
            },
            config::Edit::Remove(remove) => Self::Remove {
                headers: name_list(remove.headers.as_ref())?,
                query_parameters: name_list(remove.query_parameters.as_ref())?,
                form_parameters: name_list(remove.form_parameters.as_ref())?,
                payload: remove.payload,
            },
            config::Edit::Add(add) => Self::Add {
                headers: pairs(Kind::Header, &add.headers)?,
                query_parameters: pairs(Kind::Query, &add.query_parameters)?,
                form_parameters: pairs(Kind::Form, &add.form_parameters)?,
            },
            config::Edit::Set(set) => Self::Set(Box::new(Set::link(set)?)),
            config::Edit::AssignVariable(assign) => Self::Assign(Box::new(Assign {
                name: VariableName::new(&assign.name),
                reference: assign.reference.as_deref().map(VariableName::new),
                template: assign.template.as_deref().map(template).transpose()?,
                template_reference: assign.template_reference.as_deref().map(VariableName::new),
                value: assign.value.clone(),
            })),
        })
    }
}

impl Set {
    fn link(set: &config::Set) -> Result<Self, String> {
        let payload = match &set.payload {
            None => None,
            Some(payload) => {
                let text = match &payload.delimiters {
                    None => Template::parse(&payload.text),
                    Some((prefix, suffix)) => {
                        Template::parse_delimited(&payload.text, prefix, suffix)
                    }
                };
                let content_type = payload.content_type.as_deref().map(template).transpose()?;
                Some((text.map_err(|error| error.to_string())?, content_type))
            }
        };
        let texts = [
            (Property::Verb, &set.verb),
            (Property::Version, &set.version),
            (Property::Path, &set.path),
            (Property::StatusCode, &set.status),
            (Property::ReasonPhrase, &set.reason),
        ];
        let properties = texts
            .into_iter()
            .filter_map(|(property, text)| Some((property, text.as_deref()?)))
            .map(|(property, text)| Ok((property, template(text)?)));
        Ok(Self {
            headers: pairs(Kind::Header, &set.headers)?,
            query_parameters: pairs(Kind::Query, &set.query_parameters)?,
            form_parameters: pairs(Kind::Form, &set.form_parameters)?,
            payload,
            properties: properties.collect::<Result<_, String>>()?,
        })
    }
}
