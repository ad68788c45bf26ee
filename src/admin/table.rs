//! The table of endpoints: every path with its methods and what answers them.
//!
//! One table serves dispatch, `OPTIONS`, `GET /endpoints` and the OpenAPI document, so that none can disagree.

use std::pin::Pin;
use std::sync::Arc;

use http::Method;

use super::answer::Outcome;
use super::call::Call;
use super::crud::Operation;
use super::state::Admin;

/// An answer under way.
pub type Pending = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// What answers a method of an endpoint.
#[derive(Clone, Copy)]
pub enum Handler {
    /// Answers from memory at once.
    Plain(fn(&Admin, &Call) -> Outcome),
    /// Has to read the body or to wait for the store.
    Waiting(fn(Arc<Admin>, Call) -> Pending),
    /// One of the operations that every entity has.
    Generic(Operation),
}

/// One step of an endpoint's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// This very text.
    Fixed(String),
    /// Any text; the name is shown in `/endpoints`.
    Key(String),
}

/// A method of an endpoint.
#[derive(Clone)]
pub struct Answerer {
    pub method: Method,
    /// One sentence for the API document.
    pub summary: String,
    pub handler: Handler,
}

/// A path with its methods.
#[derive(Clone)]
pub struct Endpoint {
    pub steps: Vec<Step>,
    pub answerers: Vec<Answerer>,
}

impl Endpoint {
    /// An endpoint without methods; placeholders are written `{name}`.
    pub fn at(path: &str) -> Self {
        let steps = path
            .split('/')
            .filter(|step| !step.is_empty())
            .map(|step| {
                match step
                    .strip_prefix('{')
                    .and_then(|step| step.strip_suffix('}'))
                {
                    Some(name) => Step::Key(name.to_owned()),
                    None => Step::Fixed(step.to_owned()),
                }
            })
            .collect();
        Self {
            steps,
            answerers: Vec::new(),
        }
    }

    /// Adds a method.
    pub fn on(mut self, method: Method, summary: impl Into<String>, handler: Handler) -> Self {
        self.answerers.push(Answerer {
            method,
            summary: summary.into(),
            handler,
        });
        self
    }

    /// Adds `GET`, answered from memory.
    pub fn shows(self, summary: &str, handler: fn(&Admin, &Call) -> Outcome) -> Self {
        self.on(Method::GET, summary, Handler::Plain(handler))
    }

    /// Adds a method that has to wait.
    pub fn waits(
        self,
        method: Method,
        summary: &str,
        handler: fn(Arc<Admin>, Call) -> Pending,
    ) -> Self {
        self.on(method, summary, Handler::Waiting(handler))
    }

    /// The path with its placeholders, for example `/services/{services}`.
    pub fn path(&self) -> String {
        if self.steps.is_empty() {
            return "/".to_owned();
        }
        self.steps
            .iter()
            .map(|step| match step {
                Step::Fixed(text) => format!("/{text}"),
                Step::Key(name) => format!("/{{{name}}}"),
            })
            .collect()
    }

    /// The methods a client may use, sorted, with `HEAD` and `OPTIONS`.
    pub fn allowed(&self) -> String {
        let mut methods: Vec<&str> = self
            .answerers
            .iter()
            .map(|answerer| answerer.method.as_str())
            .collect();
        if methods.contains(&"GET") {
            methods.push("HEAD");
        }
        methods.push("OPTIONS");
        methods.sort_unstable();
        methods.join(", ")
    }

    /// What answers a method.
    pub fn answerer(&self, method: &Method) -> Option<&Answerer> {
        self.answerers
            .iter()
            .find(|answerer| answerer.method == method)
    }

    /// What the placeholders stand for in a given path; `None` when the path is another one.
    fn keys(&self, segments: &[String]) -> Option<Vec<String>> {
        if segments.len() != self.steps.len() {
            return None;
        }
        let mut keys = Vec::new();
        for (step, segment) in self.steps.iter().zip(segments) {
            match step {
                Step::Fixed(text) if text == segment => {}
                Step::Fixed(_) => return None,
                // `//` names nothing.
                Step::Key(_) if segment.is_empty() => return None,
                Step::Key(_) => keys.push(segment.clone()),
            }
        }
        Some(keys)
    }

    /// Orders endpoints so that fixed texts come before placeholders, from the left.
    fn order(&self) -> Vec<(bool, &str)> {
        self.steps
            .iter()
            .map(|step| match step {
                Step::Fixed(text) => (false, text.as_str()),
                Step::Key(name) => (true, name.as_str()),
            })
            .collect()
    }

    fn same_path(&self, other: &Self) -> bool {
        self.steps.len() == other.steps.len()
            && self.steps.iter().zip(&other.steps).all(|pair| match pair {
                (Step::Fixed(one), Step::Fixed(two)) => one == two,
                (Step::Key(_), Step::Key(_)) => true,
                _ => false,
            })
    }
}

/// All endpoints.
#[derive(Clone, Default)]
pub struct Table {
    endpoints: Vec<Endpoint>,
}

/// What a path leads to.
pub enum Found<'t> {
    /// No endpoint has this path.
    Nothing,
    /// An endpoint has it, but not this method.
    OtherMethods(&'t Endpoint),
    /// This answers, with these keys.
    Answerer(&'t Answerer, Vec<String>),
}

impl Table {
    /// A table of the given endpoints; of two with one path and method the later counts.
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let mut table = Self::default();
        for endpoint in endpoints {
            table.add(endpoint);
        }
        table
            .endpoints
            .sort_by(|one, two| one.order().cmp(&two.order()));
        table
    }

    fn add(&mut self, endpoint: Endpoint) {
        let Some(known) = self
            .endpoints
            .iter_mut()
            .find(|known| known.same_path(&endpoint))
        else {
            self.endpoints.push(endpoint);
            return;
        };
        for answerer in endpoint.answerers {
            known
                .answerers
                .retain(|present| present.method != answerer.method);
            known.answerers.push(answerer);
        }
    }

    /// The endpoints that answer `GET`, with that alone.
    pub fn only_reading(mut self) -> Self {
        for endpoint in &mut self.endpoints {
            endpoint
                .answerers
                .retain(|answerer| answerer.method == Method::GET);
        }
        self.endpoints
            .retain(|endpoint| !endpoint.answerers.is_empty());
        self
    }

    /// The table with one more endpoint.
    pub fn with(mut self, endpoint: Endpoint) -> Self {
        self.add(endpoint);
        Self::new(self.endpoints)
    }

    /// All endpoints, fixed texts before placeholders.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter()
    }

    /// Looks for what answers a method at a path.
    pub fn find(&self, method: &Method, segments: &[String]) -> Found<'_> {
        let mut other = None;
        for endpoint in &self.endpoints {
            let Some(keys) = endpoint.keys(segments) else {
                continue;
            };
            if let Some(answerer) = endpoint.answerer(method) {
                return Found::Answerer(answerer, keys);
            }
            other.get_or_insert(endpoint);
        }
        other.map_or(Found::Nothing, Found::OtherMethods)
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]
    use super::super::answer::Answer;
    use super::*;

    fn nothing(_: &Admin, _: &Call) -> Outcome {
        Ok(Answer::no_content())
    }

    fn path(text: &str) -> Vec<String> {
        super::super::call::segments(text).unwrap()
    }

    #[test]
    fn fixed_texts_win_and_methods_are_looked_for_everywhere() {
        let table = Table::new([
            Endpoint::at("/plugins/{plugins}").shows("one", nothing),
            Endpoint::at("/plugins/enabled").shows("enabled", nothing),
            Endpoint::at("/schemas/vaults/{name}").shows("vault", nothing),
            Endpoint::at("/schemas/{entity}/validate").on(
                Method::POST,
                "check",
                Handler::Plain(nothing),
            ),
            Endpoint::at("/").shows("root", nothing),
        ]);
        for (method, at, expected) in [
            (Method::GET, "/plugins/enabled", "enabled"),
            (Method::GET, "/plugins/x", "one"),
            (Method::GET, "/schemas/vaults/env", "vault"),
            (Method::POST, "/schemas/vaults/validate", "check"),
            (Method::GET, "/", "root"),
        ] {
            match table.find(&method, &path(at)) {
                Found::Answerer(answerer, _) => assert_eq!(answerer.summary, expected),
                _ => panic!("{at}"),
            }
        }
        assert!(matches!(
            table.find(&Method::GET, &path("/nothing")),
            Found::Nothing
        ));
        assert!(matches!(
            table.find(&Method::GET, &path("/plugins//")),
            Found::Nothing
        ));
        let Found::OtherMethods(endpoint) = table.find(&Method::DELETE, &path("/plugins/x")) else {
            panic!("other methods");
        };
        assert_eq!(endpoint.allowed(), "GET, HEAD, OPTIONS");
        assert_eq!(endpoint.path(), "/plugins/{plugins}");
    }
}
