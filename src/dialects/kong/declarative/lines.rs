//! On which line of a document something stands.
//!
//! Read only after a document was refused: the tree that entities are made of carries no lines.

use ahash::AHashMap;
use saphyr_parser::{Event, Parser, Span, SpannedEventReceiver};

/// The lines of everything in a YAML or JSON text. What an alias stands for has the line of the alias.
pub struct Lines {
    /// By the thing around it and the key or position (from 0) in it.
    children: AHashMap<(usize, Box<str>), usize>,
    lines: Vec<u32>,
}

impl Lines {
    /// Reads a text; of one that is broken, what stands before the break.
    pub fn of(text: &str) -> Self {
        let mut reader = Reader {
            lines: Self {
                children: AHashMap::new(),
                lines: Vec::new(),
            },
            open: Vec::new(),
        };
        // An error ends the reading: what was found stands.
        let _ = Parser::new_from_str(text).load(&mut reader, false);
        reader.lines
    }

    /// The line of what stands at `path`, or of the innermost thing around it that is there.
    pub fn find(&self, path: &[String]) -> Option<u32> {
        let mut node = 0;
        for step in path {
            match self.children.get(&(node, step.as_str().into())) {
                Some(child) => node = *child,
                None => break,
            }
        }
        // The root stands for no place in particular.
        (node != 0).then(|| self.lines.get(node).copied())?
    }
}

struct Reader {
    lines: Lines,
    /// Lists and mappings around the current event, innermost last.
    open: Vec<Open>,
}

struct Open {
    node: usize,
    inside: Inside,
}

enum Inside {
    /// The position of the next element.
    List(usize),
    /// The key that was read, with its line, while its value is awaited.
    Mapping(Option<(Box<str>, u32)>),
}

impl Reader {
    /// The node of the value that begins here; none when it is a mapping's key.
    fn value(&mut self, line: u32, scalar: Option<&str>) -> Option<usize> {
        let node = self.lines.lines.len();
        let mut own_line = line;
        if let Some(open) = self.open.last_mut() {
            let key = match &mut open.inside {
                Inside::List(position) => {
                    *position += 1;
                    Box::from((*position - 1).to_string())
                }
                Inside::Mapping(key) => match key.take() {
                    Some((key, line)) => {
                        own_line = line;
                        key
                    }
                    None => {
                        // A key that is no scalar is refused elsewhere.
                        *key = Some((scalar.unwrap_or_default().into(), line));
                        return None;
                    }
                },
            };
            self.lines.children.insert((open.node, key), node);
        }
        self.lines.lines.push(own_line);
        Some(node)
    }

    fn begin(&mut self, line: u32, inside: Inside) {
        let node = self.value(line, None).unwrap_or_default();
        self.open.push(Open { node, inside });
    }
}

impl<'input> SpannedEventReceiver<'input> for Reader {
    fn on_event(&mut self, event: Event<'input>, span: Span) {
        let line = u32::try_from(span.start.line()).unwrap_or(u32::MAX);
        match event {
            Event::Scalar(text, ..) => drop(self.value(line, Some(&text))),
            Event::Alias(_) => drop(self.value(line, None)),
            Event::SequenceStart(..) => self.begin(line, Inside::List(0)),
            Event::MappingStart(..) => self.begin(line, Inside::Mapping(None)),
            Event::SequenceEnd | Event::MappingEnd => drop(self.open.pop()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_innermost_thing_that_is_there() {
        let yaml = "\
a: 1
services:
- name: one
  routes:
  - paths:
    - /x
    - &y /y
- name: two
  tags: [q, *y]
";
        let json = "{\n \"services\": [\n  {\"name\": \"one\"},\n  {\"name\":\n \"two\"}\n ]\n}";
        let cases: [(&str, &str, Option<u32>); 9] = [
            (yaml, "a", Some(1)),
            (yaml, "services", Some(2)),
            (yaml, "services 0", Some(3)),
            (yaml, "services 0 routes 0 paths 1", Some(7)),
            (yaml, "services 1 tags 1", Some(9)),
            (yaml, "services 1 missing", Some(8)),
            (yaml, "missing", None),
            (json, "services 1 name", Some(4)),
            ("a: [", "a", Some(1)),
        ];
        for (text, path, line) in cases {
            let path: Vec<String> = path.split(' ').map(str::to_owned).collect();
            assert_eq!(Lines::of(text).find(&path), line, "{path:?}");
        }
    }
}
