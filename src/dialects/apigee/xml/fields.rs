//! Configuration out of elements: typed reading that reports everything at once.
//!
//! Owns the rule of what is done with what is written: each child or attribute that a reader asks for is known; what
//! remains at [`Fields::finish`] is unknown to us and to Apigee, cannot change behaviour and gets a warning; what Apigee
//! knows and we cannot do is named with [`Fields::refuse`] and is an error. Refuses to know any particular element.

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::document::{Attribute, Element};
use crate::base::diagnostic::{Diagnostic, has_errors};
use crate::base::source_ref::SourceRef;

/// Findings about a bundle, at most [`Findings::MAX`].
#[derive(Debug, Default)]
pub struct Findings {
    list: Vec<Diagnostic>,
}

impl Findings {
    /// More findings than a writer reads; the rest are dropped after a last one that says so.
    pub const MAX: usize = 500;

    /// Nothing found yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a finding.
    pub fn push(&mut self, finding: Diagnostic) {
        if self.list.len() < Self::MAX {
            self.list.push(finding);
        } else if self.list.len() == Self::MAX {
            let message = format!("more than {} findings, the rest are not shown", Self::MAX);
            self.list.push(Diagnostic::error(
                "too-many-findings",
                SourceRef::default(),
                message,
            ));
        }
    }

    /// Adds findings.
    pub fn extend(&mut self, findings: impl IntoIterator<Item = Diagnostic>) {
        findings.into_iter().for_each(|finding| self.push(finding));
    }

    /// Adds one that forbids the use of the bundle.
    pub fn error(&mut self, code: &'static str, at: SourceRef, message: impl Into<String>) {
        self.push(Diagnostic::error(code, at, message));
    }

    /// Adds one that leaves the bundle usable.
    pub fn warning(&mut self, code: &'static str, at: SourceRef, message: impl Into<String>) {
        self.push(Diagnostic::warning(code, at, message));
    }

    /// Whether any forbids use.
    pub fn has_errors(&self) -> bool {
        has_errors(&self.list)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them, in the order found.
    pub fn as_slice(&self) -> &[Diagnostic] {
        &self.list
    }

    /// All of them, in the order found.
    pub fn into_vec(self) -> Vec<Diagnostic> {
        self.list
    }
}

/// A value with the place where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written<T> {
    /// What was written.
    pub value: T,
    /// Where.
    pub at: SourceRef,
}

/// `true` or `false` in any case, white space around it ignored.
pub fn boolean_of(text: &str) -> Option<bool> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// Reads the attributes and children of one element, and remembers which it was asked for.
#[derive(Debug)]
pub struct Fields<'a> {
    element: Element<'a>,
    children: Vec<&'static str>,
    attributes: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Begins to read an element.
    pub fn new(element: Element<'a>) -> Self {
        Self {
            element,
            children: Vec::new(),
            attributes: Vec::new(),
        }
    }

    /// The element that is read.
    pub fn element(&self) -> Element<'a> {
        self.element
    }

    /// Where the element was written, with its name.
    pub fn place(&self) -> SourceRef {
        place_of(self.element)
    }

    /// The attribute, when it is written.
    pub fn attribute(&mut self, name: &'static str) -> Option<Attribute<'a>> {
        self.attributes.push(name);
        self.element.attribute_named(name)
    }

    /// The attribute's value, white space around it removed, when it is written and not blank.
    pub fn attribute_text(&mut self, name: &'static str) -> Option<&'a str> {
        let text = self.attribute(name)?.value().trim();
        (!text.is_empty()).then_some(text)
    }

    /// The attribute's value; an error when it is missing or blank.
    pub fn required_attribute(
        &mut self,
        name: &'static str,
        findings: &mut Findings,
    ) -> Option<&'a str> {
        let text = self.attribute_text(name);
        if text.is_none() {
            findings.error(
                "missing-attribute",
                self.place(),
                format!("needs the attribute '{name}'"),
            );
        }
        text
    }

    /// The attribute as a boolean; `default` when it is absent or blank.
    pub fn boolean_attribute(
        &mut self,
        name: &'static str,
        default: bool,
        findings: &mut Findings,
    ) -> bool {
        match self.attribute_text(name) {
            None => default,
            Some(text) => boolean_of(text).unwrap_or_else(|| {
                let message = format!(
                    "attribute '{name}' must be true or false, not '{}'",
                    shortened(text)
                );
                findings.error("invalid-value", self.place(), message);
                default
            }),
        }
    }

    /// The attribute as a number of the range, when it is written.
    pub fn number_attribute<T>(
        &mut self,
        name: &'static str,
        range: RangeInclusive<T>,
        findings: &mut Findings,
    ) -> Option<T>
    where
        T: FromStr + PartialOrd + Display,
    {
        let text = self.attribute_text(name)?;
        let number = number_of(text, &range);
        if number.is_none() {
            let message = format!("attribute '{name}' {}", must_be(&range, text));
            findings.error("invalid-value", self.place(), message);
        }
        number
    }

    /// The attribute as one of the words, when it is written. Case counts.
    pub fn choice_attribute<T: Copy>(
        &mut self,
        name: &'static str,
        words: &[(&str, T)],
        findings: &mut Findings,
    ) -> Option<T> {
        let text = self.attribute_text(name)?;
        let chosen = words.iter().find(|(word, _)| *word == text);
        if chosen.is_none() {
            let message = format!("attribute '{name}' {}", must_be_one_of(words, text));
            findings.error("invalid-value", self.place(), message);
        }
        chosen.map(|(_, value)| *value)
    }

    /// The child; a warning when it is written more than once (the first counts).
    pub fn child(&mut self, name: &'static str, findings: &mut Findings) -> Option<Element<'a>> {
        let mut children = self.children(name);
        let first = children.next();
        if let Some(second) = children.next() {
            let message = "is written more than once, only the first counts";
            findings.warning("repeated-element", place_of(second), message);
        }
        first
    }

    /// The child under any of its spellings.
    pub fn child_spelled(
        &mut self,
        names: &[&'static str],
        findings: &mut Findings,
    ) -> Option<Element<'a>> {
        let found: Vec<_> = names
            .iter()
            .filter_map(|name| self.child(name, findings))
            .collect();
        found.first().copied()
    }

    /// All children of this name, in order.
    pub fn children(
        &mut self,
        name: &'static str,
    ) -> impl Iterator<Item = Element<'a>> + Clone + use<'a> {
        self.children.push(name);
        self.element
            .children()
            .filter(move |child| child.name() == name)
    }

    /// The text of the child, white space around it removed; `None` when the child is absent, `""` when it is empty.
    pub fn text(&mut self, name: &'static str, findings: &mut Findings) -> Option<Cow<'a, str>> {
        self.child(name, findings).map(Element::text)
    }

    /// The text of the child, when it is written and not blank.
    pub fn filled_text(
        &mut self,
        name: &'static str,
        findings: &mut Findings,
    ) -> Option<Cow<'a, str>> {
        self.text(name, findings).filter(|text| !text.is_empty())
    }

    /// The text of the child; an error when it is missing or blank.
    pub fn required_text(
        &mut self,
        name: &'static str,
        findings: &mut Findings,
    ) -> Option<Cow<'a, str>> {
        let text = self.filled_text(name, findings);
        if text.is_none() {
            findings.error(
                "missing-element",
                self.place(),
                format!("needs <{name}> with a text"),
            );
        }
        text
    }

    /// The child as a boolean; `default` when it is absent or blank.
    pub fn boolean(&mut self, name: &'static str, default: bool, findings: &mut Findings) -> bool {
        self.optional_boolean(name, findings).unwrap_or(default)
    }

    /// The child as a boolean, when it is written and not blank.
    pub fn optional_boolean(
        &mut self,
        name: &'static str,
        findings: &mut Findings,
    ) -> Option<bool> {
        let child = self.child(name, findings)?;
        let text = child.text();
        if text.is_empty() {
            return None;
        }
        let value = boolean_of(&text);
        if value.is_none() {
            let message = format!("must be true or false, not '{}'", shortened(&text));
            findings.error("invalid-value", place_of(child), message);
        }
        value
    }

    /// The child as a number of the range, when it is written and not blank.
    pub fn number<T>(
        &mut self,
        name: &'static str,
        range: RangeInclusive<T>,
        findings: &mut Findings,
    ) -> Option<T>
    where
        T: FromStr + PartialOrd + Display,
    {
        let child = self.child(name, findings)?;
        let text = child.text();
        if text.is_empty() {
            return None;
        }
        let number = number_of(&text, &range);
        if number.is_none() {
            findings.error("invalid-value", place_of(child), must_be(&range, &text));
        }
        number
    }

    /// The child as one of the words, when it is written and not blank. Case counts.
    pub fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        words: &[(&str, T)],
        findings: &mut Findings,
    ) -> Option<T> {
        let child = self.child(name, findings)?;
        let text = child.text();
        if text.is_empty() {
            return None;
        }
        let chosen = words.iter().find(|(word, _)| *word == text);
        if chosen.is_none() {
            findings.error(
                "invalid-value",
                place_of(child),
                must_be_one_of(words, &text),
            );
        }
        chosen.map(|(_, value)| *value)
    }

    /// Names that are known and change nothing: no warning for them.
    pub fn ignore(&mut self, names: &[&'static str]) {
        self.children.extend_from_slice(names);
    }

    /// Attributes that are known and change nothing: no warning for them.
    pub fn ignore_attributes(&mut self, names: &[&'static str]) {
        self.attributes.extend_from_slice(names);
    }

    /// A child that Apigee knows and that is not supported here: an error with the reason when it is written.
    pub fn refuse(&mut self, name: &'static str, reason: &str, findings: &mut Findings) {
        if let Some(child) = self.children(name).next() {
            findings.error(
                "unsupported-element",
                place_of(child),
                format!("is not supported, {reason}"),
            );
        }
    }

    /// Warns about everything that nobody asked for.
    pub fn finish(self, findings: &mut Findings) {
        for attribute in self
            .element
            .attributes()
            .filter(|attribute| !attribute.is_namespace())
        {
            let is_foreign = !attribute.full_name().prefix.is_empty();
            if is_foreign || self.attributes.contains(&attribute.name()) {
                continue;
            }
            let place = attribute
                .place()
                .about(format!("<{}>", self.element.name()));
            let message = format!(
                "attribute '{}' is not known and has no effect",
                attribute.name()
            );
            push_unknown(findings, place, message, &self.attributes);
        }
        for child in self.element.children() {
            if !self.children.contains(&child.name()) {
                let message = format!(
                    "is not known in <{}> and has no effect",
                    self.element.name()
                );
                push_unknown(findings, place_of(child), message, &self.children);
            }
        }
    }
}

fn push_unknown(
    findings: &mut Findings,
    place: SourceRef,
    message: String,
    known: &[&'static str],
) {
    /// Longer lists help nobody.
    const NAMED_MAX: usize = 16;
    let mut finding = Diagnostic::warning("unknown-element", place, message);
    let mut names = known.to_vec();
    names.sort_unstable();
    names.dedup();
    if !names.is_empty() && names.len() <= NAMED_MAX {
        finding = finding.with_hint(format!("known are {}", names.join(", ")));
    }
    findings.push(finding);
}

/// Where an element was written, with its name as the subject.
pub(super) fn place_of(element: Element<'_>) -> SourceRef {
    element.place().about(format!("<{}>", element.name()))
}

fn number_of<T: FromStr + PartialOrd>(text: &str, range: &RangeInclusive<T>) -> Option<T> {
    text.parse().ok().filter(|number| range.contains(number))
}

fn must_be<T: Display>(range: &RangeInclusive<T>, text: &str) -> String {
    let (low, high) = (range.start(), range.end());
    format!(
        "must be a number from {low} to {high}, not '{}'",
        shortened(text)
    )
}

fn must_be_one_of<T>(words: &[(&str, T)], text: &str) -> String {
    let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    format!(
        "must be one of {}, not '{}'",
        words.join(", "),
        shortened(text)
    )
}

fn shortened(text: &str) -> String {
    /// Enough to recognise what one wrote.
    const SHOWN_MAX: usize = 60;
    let mut shown: String = text.chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]
    use super::super::{Document, Limits};
    use super::*;

    #[test]
    fn reads_types_and_reports_all_at_once() {
        let text = "<P name='n' enabled='TRUE' odd='1'>\n<A> x </A><B>maybe</B>\n<N>70</N><C>RED</C><Strange/>\n<A>y</A>\n<Auth/><Note/></P>";
        let document = Document::parse("policies/p.xml", text, Limits::CONFIGURATION).unwrap();
        let mut findings = Findings::new();
        let mut fields = Fields::new(document.root());
        assert_eq!(fields.required_attribute("name", &mut findings), Some("n"));
        assert!(fields.boolean_attribute("enabled", false, &mut findings));
        assert_eq!(fields.text("A", &mut findings).as_deref(), Some("x"));
        assert!(fields.boolean("B", true, &mut findings));
        assert_eq!(fields.number("N", 1..=60, &mut findings), None);
        assert_eq!(
            fields.choice("C", &[("ALLOW", 1), ("DENY", 2)], &mut findings),
            None
        );
        assert_eq!(fields.required_text("Missing", &mut findings), None);
        fields.refuse(
            "Auth",
            "tokens of Google's are not made here",
            &mut findings,
        );
        fields.ignore(&["Note"]);
        fields.finish(&mut findings);
        assert!(findings.has_errors());
        let told: Vec<_> = findings
            .as_slice()
            .iter()
            .map(ToString::to_string)
            .collect();
        let known = "known are A, Auth, B, C, Missing, N, Note";
        let unknown =
            format!("policies/p.xml:3: <Strange>: is not known in <P> and has no effect, {known}");
        let expected = [
            "policies/p.xml:4: <A>: is written more than once, only the first counts",
            "policies/p.xml:2: <B>: must be true or false, not 'maybe'",
            "policies/p.xml:3: <N>: must be a number from 1 to 60, not '70'",
            "policies/p.xml:3: <C>: must be one of ALLOW, DENY, not 'RED'",
            "policies/p.xml:1: <P>: needs <Missing> with a text",
            "policies/p.xml:5: <Auth>: is not supported, tokens of Google's are not made here",
            "policies/p.xml:1: <P>: attribute 'odd' is not known and has no effect, known are enabled, name",
            unknown.as_str(),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn stops_collecting() {
        let mut findings = Findings::new();
        for _ in 0..2 * Findings::MAX {
            findings.warning("x", SourceRef::default(), "x");
        }
        assert_eq!(findings.len(), Findings::MAX + 1);
        assert!(findings.has_errors());
    }
}
