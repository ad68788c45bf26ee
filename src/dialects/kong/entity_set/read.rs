//! Reading: rows by kind, children of a parent, pages, tags, and rows as answers show them.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::index::{linked, positions};
use super::{EntitySet, Row};
use crate::dialects::kong::entities::{EntityKind, SNIS, Target};
use crate::dialects::kong::error::ApiError;
use crate::model::catalog::Catalog;
use crate::model::schema::FieldErrors;

/// Tags in one filter at most.
const TAGS_MAX: usize = 5;
/// Rows on a page at most.
pub const PAGE_SIZE_MAX: usize = 1000;
/// Rows on a page when the client does not say.
pub const PAGE_SIZE_DEFAULT: usize = 100;

/// Which rows a list shows.
#[derive(Debug, Clone, Default)]
pub struct PageQuery {
    /// Rows on the page at most; zero stands for [`PAGE_SIZE_DEFAULT`].
    pub size: usize,
    /// The last row of the page before.
    pub after: Option<Uuid>,
    /// Only children of this parent: link and id.
    pub parent: Option<(&'static str, Uuid)>,
    /// Only rows with these tags.
    pub tags: Option<TagFilter>,
    /// Rows that have ended by this second are left out.
    pub now_seconds: u64,
}

/// A page of rows.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The rows, ordered by id (targets below their upstream: newest first).
    pub rows: Vec<Arc<Row>>,
    /// What to give as `after` for the next page; `None` on the last.
    pub next: Option<Uuid>,
}

/// A tag filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagFilter {
    /// All of the tags.
    All(Vec<String>),
    /// One of the tags at least.
    Any(Vec<String>),
}

/// A row that carries a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    /// The tag.
    pub tag: Arc<str>,
    /// The kind of the row.
    pub kind: EntityKind,
    /// The row.
    pub id: Uuid,
}

impl TagFilter {
    /// Reads `a,b` (all of) or `a/b` (any of).
    ///
    /// # Errors
    ///
    /// Code 11, in the words that clients know.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let refuse =
            |message: &str| Err(ApiError::invalid_options(FieldErrors::one("tags", message)));
        if text.is_empty() {
            return refuse("cannot be null");
        }
        let (all, any) = (text.contains(','), text.contains('/'));
        if all && any {
            return refuse("invalid filter syntax");
        }
        let tags: Vec<String> = text
            .split(if any { '/' } else { ',' })
            .map(str::to_owned)
            .collect();
        if tags.iter().any(String::is_empty) {
            return refuse("invalid filter syntax");
        }
        if tags.len() > TAGS_MAX {
            return refuse("cannot query more than 5 tags");
        }
        let printable = |c: char| !c.is_ascii() || (' '..='~').contains(&c);
        if !text.chars().all(printable) {
            return refuse("must only contain printable ascii (except `,` and `/`) or valid utf-8");
        }
        Ok(if any {
            Self::Any(tags)
        } else {
            Self::All(tags)
        })
    }

    fn names(&self) -> &[String] {
        match self {
            Self::All(tags) | Self::Any(tags) => tags,
        }
    }
}

impl EntitySet {
    /// All rows of a kind, ordered by id.
    pub fn rows(&self, kind: EntityKind) -> impl Iterator<Item = &Arc<Row>> {
        self.rows
            .range((kind, Uuid::nil())..=(kind, Uuid::max()))
            .map(|(_, row)| row)
    }

    /// All rows of all kinds, parents before children.
    pub fn all_rows(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.rows.values()
    }

    /// The rows of a kind that link to a parent through a field, ordered by id.
    pub fn children<'a>(
        &'a self,
        kind: EntityKind,
        field: &str,
        parent: Uuid,
    ) -> impl Iterator<Item = &'a Arc<Row>> + use<'a> {
        let position = positions(&kind.definition().foreign_keys)
            .find(|(_, key)| key.field == field)
            .map(|(position, _)| position);
        position.into_iter().flat_map(move |position| {
            let range =
                (parent, kind, position, Uuid::nil())..=(parent, kind, position, Uuid::max());
            self.links
                .range(range)
                .filter_map(move |(_, _, _, child)| self.row(kind, *child))
        })
    }

    /// A page of a list.
    pub fn page(&self, kind: EntityKind, query: &PageQuery) -> Page {
        let size = match query.size {
            0 => PAGE_SIZE_DEFAULT,
            size => size.min(PAGE_SIZE_MAX),
        };
        if kind == EntityKind::Target && query.parent.is_some() {
            return self.targets_page(query, size);
        }
        let after = query.after;
        let wanted = |row: &&Arc<Row>| {
            !row.has_expired(query.now_seconds)
                && query
                    .tags
                    .as_ref()
                    .is_none_or(|tags| self.carries(row, tags))
        };
        let behind = |row: &&Arc<Row>| after.is_none_or(|after| row.id > after);
        match (query.parent, &query.tags) {
            (Some((field, parent)), _) => page_of(
                self.children(kind, field, parent)
                    .filter(behind)
                    .filter(wanted),
                size,
            ),
            (None, Some(tags)) => {
                let ids = self.ids_with_any_tag(kind, tags);
                page_of(
                    ids.iter()
                        .filter_map(|id| self.row(kind, *id))
                        .filter(behind)
                        .filter(wanted),
                    size,
                )
            }
            (None, None) => {
                let from = (kind, after.unwrap_or(Uuid::nil()));
                let rows = self.rows.range(from..=(kind, Uuid::max()));
                page_of(rows.map(|(_, row)| row).filter(behind).filter(wanted), size)
            }
        }
    }

    /// Targets stand newest first.
    fn targets_page(&self, query: &PageQuery, size: usize) -> Page {
        let Some((field, parent)) = query.parent else {
            return Page::default();
        };
        let mut rows: Vec<(Reverse<i64>, Uuid, &Arc<Row>)> = self
            .children(EntityKind::Target, field, parent)
            .filter(|row| {
                query
                    .tags
                    .as_ref()
                    .is_none_or(|tags| self.carries(row, tags))
            })
            .map(|row| {
                let millis = row
                    .parse::<Target>()
                    .map_or(0, |target| (target.created_at * 1000.0) as i64);
                (Reverse(millis), row.id, row)
            })
            .collect();
        rows.sort_unstable_by_key(|(age, id, _)| (*age, *id));
        let start = match query.after {
            None => 0,
            Some(after) => rows
                .iter()
                .position(|(_, id, _)| *id == after)
                .map_or(rows.len(), |at| at + 1),
        };
        page_of(rows.into_iter().skip(start).map(|(_, _, row)| row), size)
    }

    fn carries(&self, row: &Row, filter: &TagFilter) -> bool {
        let has = |tag: &String| {
            self.tags
                .contains(&(Arc::from(tag.as_str()), row.kind, row.id))
        };
        match filter {
            TagFilter::All(tags) => tags.iter().all(has),
            TagFilter::Any(tags) => tags.iter().any(has),
        }
    }

    /// The rows that carry the first tag of an all-filter, or any tag of an any-filter.
    fn ids_with_any_tag(&self, kind: EntityKind, filter: &TagFilter) -> BTreeSet<Uuid> {
        let names = filter.names();
        let names = match filter {
            TagFilter::All(_) => names.get(..1).unwrap_or_default(),
            TagFilter::Any(_) => names,
        };
        let mut ids = BTreeSet::new();
        for name in names {
            let tag: Arc<str> = Arc::from(name.as_str());
            let range = (tag.clone(), kind, Uuid::nil())..=(tag, kind, Uuid::max());
            ids.extend(self.tags.range(range).map(|(_, _, id)| *id));
        }
        ids
    }

    /// Rows with tags, ordered by tag, kind and id; only those of one tag when it is given. At most `size`, behind `after`.
    pub fn tagged(&self, tag: Option<&str>, after: Option<&Tagged>, size: usize) -> Vec<Tagged> {
        let first = EntityKind::ALL[0];
        let start = match (after, tag) {
            (Some(after), _) => (after.tag.clone(), after.kind, after.id),
            (None, Some(tag)) => (Arc::from(tag), first, Uuid::nil()),
            (None, None) => (Arc::from(""), first, Uuid::nil()),
        };
        self.tags
            .range(start.clone()..)
            .filter(|entry| after.is_none() || **entry != start)
            .take_while(|(name, _, _)| tag.is_none_or(|tag| **name == *tag))
            .take(size)
            .map(|(tag, kind, id)| Tagged {
                tag: tag.clone(),
                kind: *kind,
                id: *id,
            })
            .collect()
    }

    /// The sorted server names of a certificate.
    pub fn snis_of(&self, certificate: Uuid) -> Vec<String> {
        let mut names: Vec<String> = self
            .children(EntityKind::Sni, "certificate", certificate)
            .filter_map(|row| Some(row.fields().get("name")?.as_str()?.to_owned()))
            .collect();
        names.sort_unstable();
        names
    }

    /// A row as answers show it: time to live as remaining seconds, certificates with their server names, plugin
    /// configurations with the former names of their fields.
    pub fn show(&self, row: &Row, now_millis: i64, catalog: &Catalog) -> Map<String, Value> {
        let mut fields = row.fields();
        if let Some(end) = row.expires_at {
            let now = u64::try_from(now_millis / 1000).unwrap_or(0);
            fields.insert("ttl".into(), Value::from(end.saturating_sub(now)));
        }
        match row.kind {
            EntityKind::Certificate => {
                fields.insert(SNIS.into(), Value::from(self.snis_of(row.id)));
            }
            EntityKind::Plugin => {
                let info = fields
                    .get("name")
                    .and_then(Value::as_str)
                    .and_then(|name| catalog.plugin(name));
                if let (Some(info), Some(Value::Object(config))) = (info, fields.get_mut("config"))
                {
                    info.config.show_aliases(config);
                }
            }
            _ => {}
        }
        fields
    }

    /// The row that a link of another row leads to.
    pub fn linked_row(&self, row: &Row, field: &str) -> Option<&Arc<Row>> {
        let parent = row.kind.definition().foreign_key(field)?.parent;
        self.row(parent, linked(&row.fields(), field)?)
    }
}

fn page_of<'a>(mut rows: impl Iterator<Item = &'a Arc<Row>>, size: usize) -> Page {
    let page: Vec<Arc<Row>> = rows.by_ref().take(size).cloned().collect();
    let more = rows.next().is_some();
    Page {
        next: page.last().filter(|_| more).map(|row| row.id),
        rows: page,
    }
}
