//! Header fields that go out beside a head instead of in it.
//!
//! A field put into a head pays for two maps, and again when it is written; one that is told pays for its bytes alone. It
//! stands instead of the fields of its name that the other side sent.

use std::ops::Deref;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::runtime::lengths::Lengths;
use crate::runtime::titled::TitledName;

/// The name of a told field.
#[derive(Debug, Clone)]
pub enum FieldName {
    /// Known when this was written.
    Fixed(&'static TitledName),
    /// From a configuration.
    Configured(Arc<TitledName>),
}

impl FieldName {
    /// May the gateway ask a request's head for a field of this name? Of its own making none that it tells; of a
    /// configuration's any, such as `Cookie`, but those that say that they hold an identifier.
    pub fn is_asked_for(&self) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::Configured(name) => !name.name.as_str().ends_with("-id"),
        }
    }
}

impl Deref for FieldName {
    type Target = TitledName;

    fn deref(&self) -> &TitledName {
        match self {
            Self::Fixed(name) => name,
            Self::Configured(name) => name,
        }
    }
}

impl From<&'static TitledName> for FieldName {
    fn from(name: &'static TitledName) -> Self {
        Self::Fixed(name)
    }
}

impl From<&Arc<TitledName>> for FieldName {
    fn from(name: &Arc<TitledName>) -> Self {
        Self::Configured(Arc::clone(name))
    }
}

/// The value of a told field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldValue {
    Text(HeaderValue),
    /// Written in decimal; it needs no text of its own until then.
    Number(u64),
}

impl FieldValue {
    /// Shows the value as it is written.
    pub fn show(&self, to: impl FnOnce(&[u8])) {
        match self {
            Self::Text(text) => to(text.as_bytes()),
            Self::Number(number) => to(itoa::Buffer::new().format(*number).as_bytes()),
        }
    }
}

impl From<HeaderValue> for FieldValue {
    fn from(text: HeaderValue) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for FieldValue {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<FieldValue> for HeaderValue {
    fn from(value: FieldValue) -> Self {
        match value {
            FieldValue::Text(text) => text,
            FieldValue::Number(number) => number.into(),
        }
    }
}

/// A header field for the upstream.
#[derive(Debug, Clone)]
pub struct RequestField {
    pub name: FieldName,
    /// `None`: no field of this name goes upstream.
    pub value: Option<HeaderValue>,
}

/// Fields that are told together, made once: telling them costs a reference.
#[derive(Debug, Clone)]
pub struct FieldSet {
    fields: Box<[RequestField]>,
    lengths: Lengths,
}

impl FieldSet {
    /// A set; names are told apart by whoever makes it.
    pub fn new<const N: usize>(fields: [(&'static TitledName, Option<HeaderValue>); N]) -> Self {
        let mut lengths = Lengths::default();
        let fields = fields.map(|(name, value)| {
            lengths.insert(name.title.len());
            let name = FieldName::Fixed(name);
            RequestField { name, value }
        });
        Self {
            fields: Box::new(fields),
            lengths,
        }
    }

    /// Each field with its value; `None` where none of the name goes upstream.
    pub fn iter(&self) -> std::slice::Iter<'_, RequestField> {
        self.fields.iter()
    }
}

/// What the upstream is told, one field for each name.
#[derive(Debug, Clone, Default)]
pub struct RequestFields {
    sets: SmallVec<[Arc<FieldSet>; 1]>,
    fields: Vec<RequestField>,
    /// Of all of them.
    lengths: Lengths,
}

impl RequestFields {
    /// Tells a field instead of what the client sent, or of what was told before, under its name.
    pub fn tell(&mut self, name: FieldName, value: Option<HeaderValue>) {
        let length = name.title.len();
        if self.lengths.may_hold(length)
            && let Some(known) = self.known(&name.name)
        {
            known.value = value;
            return;
        }
        self.lengths.insert(length);
        self.fields.push(RequestField { name, value });
    }

    /// The same for each field of a set.
    pub fn tell_set(&mut self, set: &Arc<FieldSet>) {
        if self.lengths.meets(set.lengths) {
            for field in set.iter() {
                self.tell(field.name.clone(), field.value.clone());
            }
            return;
        }
        self.lengths.join(set.lengths);
        self.sets.push(Arc::clone(set));
    }

    /// What is told under this name, to be changed: sets are dissolved for it.
    fn known(&mut self, name: &HeaderName) -> Option<&mut RequestField> {
        let is_it = |field: &RequestField| field.name.name == *name;
        if self.sets.iter().any(|set| set.iter().any(is_it)) {
            for set in std::mem::take(&mut self.sets) {
                self.fields.extend(set.iter().cloned());
            }
        }
        self.fields.iter_mut().find(|field| is_it(field))
    }

    /// What is told under this name.
    pub fn get(&self, name: &HeaderName) -> Option<&RequestField> {
        if !self.lengths.may_hold(name.as_str().len()) {
            return None;
        }
        self.iter().find(|field| field.name.name == *name)
    }

    /// Is something, or that there is nothing, told under this name? In any case.
    pub fn stand_for(&self, name: &[u8]) -> bool {
        self.lengths.may_hold(name.len()) && self.iter().any(|field| field.name.is(name))
    }

    pub fn iter(&self) -> impl Iterator<Item = &RequestField> {
        let sets = self.sets.iter().flat_map(|set| set.iter());
        sets.chain(&self.fields)
    }
}

/// A header field for the client, left there before a response has come.
#[derive(Debug, Clone)]
pub struct ResponseField {
    pub name: &'static TitledName,
    pub value: FieldValue,
    /// Whether fields of this name that the upstream sends stay.
    pub beside_others: bool,
}

impl ResponseField {
    /// A field instead of those that the upstream sends.
    pub fn instead(name: &'static TitledName, value: impl Into<FieldValue>) -> Self {
        Self {
            name,
            value: value.into(),
            beside_others: false,
        }
    }

    /// A field beside those that the upstream sends.
    pub fn beside(name: &'static TitledName, value: impl Into<FieldValue>) -> Self {
        Self {
            name,
            value: value.into(),
            beside_others: true,
        }
    }
}

/// What the client is told, whoever makes the response.
#[derive(Debug, Clone, Default)]
pub struct ResponseFields {
    fields: Vec<ResponseField>,
    /// Of those that stand instead of others.
    lengths: Lengths,
}

impl ResponseFields {
    /// Makes room for so many more.
    pub fn reserve(&mut self, additional: usize) {
        self.fields.reserve(additional);
    }

    pub fn push(&mut self, field: ResponseField) {
        if !field.beside_others {
            self.lengths.insert(field.name.title.len());
        }
        self.fields.push(field);
    }

    /// Takes back what has this value.
    pub fn take_back(&mut self, value: &FieldValue) {
        self.fields.retain(|field| field.value != *value);
    }

    /// Does one of them stand instead of fields of this name? In any case.
    pub fn stand_for(&self, name: &[u8]) -> bool {
        let stands_instead = |field: &ResponseField| !field.beside_others && field.name.is(name);
        self.lengths.may_hold(name.len()) && self.fields.iter().any(stands_instead)
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, ResponseField> {
        self.fields.iter()
    }
}

impl IntoIterator for ResponseFields {
    type Item = ResponseField;
    type IntoIter = std::vec::IntoIter<ResponseField>;

    fn into_iter(self) -> Self::IntoIter {
        self.fields.into_iter()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::LazyLock;

    use super::*;

    static A: LazyLock<TitledName> = LazyLock::new(|| TitledName::fixed("X-A"));
    static LONG: LazyLock<TitledName> = LazyLock::new(|| TitledName::fixed("X-Long"));
    static OTHER: LazyLock<TitledName> = LazyLock::new(|| TitledName::fixed("X-Otherwise"));
    static B: LazyLock<TitledName> = LazyLock::new(|| TitledName::fixed("X-B"));

    fn text(text: &'static str) -> HeaderValue {
        HeaderValue::from_static(text)
    }

    #[test]
    fn a_name_is_told_once_however_it_is_spelt() {
        let mut fields = RequestFields::default();
        fields.tell(FieldName::from(&*A), Some(text("1")));
        let same = TitledName::parse("x-a").map(Arc::new);
        fields.tell(FieldName::from(&*B), None);
        fields.tell(FieldName::from(&same.unwrap()), Some(text("2")));
        let told: Vec<_> = fields.iter().map(|it| (&it.name.name, &it.value)).collect();
        assert_eq!(told, [(&A.name, &Some(text("2"))), (&B.name, &None)]);
        assert!(fields.stand_for(b"X-a") && fields.stand_for(b"x-b"));
        // Of the same length, and of one that shares its bit.
        let long = [b'x'; 67];
        assert!(
            !fields.stand_for(b"X-C") && !fields.stand_for(&long) && !fields.stand_for(b"Host")
        );
        assert!(
            fields
                .get(&B.name)
                .is_some_and(|field| field.value.is_none())
        );
    }

    #[test]
    fn sets_are_told_whole_and_their_fields_may_be_told_anew() {
        let set = Arc::new(FieldSet::new([(&*A, Some(text("1"))), (&*LONG, None)]));
        let told = |fields: &RequestFields| {
            let told = fields
                .iter()
                .map(|it| (it.name.name.clone(), it.value.clone()));
            told.collect::<std::collections::HashMap<_, _>>()
        };
        // Told before, told after, and told again; beside a field that none of these is.
        for order in [[0, 1, 2], [1, 0, 2], [2, 1, 1], [1, 2, 1]] {
            let mut fields = RequestFields::default();
            for step in order {
                match step {
                    0 => fields.tell(FieldName::from(&*A), Some(text("0"))),
                    1 => fields.tell_set(&set),
                    _ => fields.tell(FieldName::from(&*OTHER), Some(text("2"))),
                }
            }
            let told = told(&fields);
            assert_eq!(told.len(), fields.iter().count(), "{order:?}");
            let first = if order == [1, 0, 2] { "0" } else { "1" };
            assert_eq!(told.get(&A.name), Some(&Some(text(first))), "{order:?}");
            assert_eq!(told.get(&LONG.name), Some(&None));
            assert_eq!(told.get(&OTHER.name), Some(&Some(text("2"))));
            assert!(fields.stand_for(b"x-LONG") && fields.get(&LONG.name).is_some());
        }
    }

    #[test]
    fn fields_stand_instead_of_others_or_beside_them() {
        let mut fields = ResponseFields::default();
        fields.push(ResponseField::beside(&A, text("left")));
        fields.push(ResponseField::instead(&B, 7));
        assert!(fields.stand_for(b"x-B") && !fields.stand_for(b"X-A"));
        fields.take_back(&text("left").into());
        let left: Vec<_> = fields
            .into_iter()
            .map(|it| HeaderValue::from(it.value))
            .collect();
        assert_eq!(left, [text("7")]);
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        let mut wire = Vec::new();
        FieldValue::from(u64::MAX).show(|value| wire.extend_from_slice(value));
        FieldValue::from(text(" %")).show(|value| wire.extend_from_slice(value));
        assert_eq!(wire, format!("{} %", u64::MAX).into_bytes());
    }
}
