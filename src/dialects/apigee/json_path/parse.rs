//! From text to steps.

use serde_json::Value;

use super::{DEPTH_MAX, Filter, Function, JsonPath, Operand, Operator, PATH_BYTES_MAX, Step};
use crate::dialects::apigee::java_regex::JavaRegex;

/// The most steps of a path, and the most members of a list in it.
const STEPS_WRITTEN_MAX: usize = 256;

impl JsonPath {
    /// Parses a path.
    ///
    /// # Errors
    /// A sentence with the column of what does not belong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.len() > PATH_BYTES_MAX {
            return Err(format!("a JSONPath may have {PATH_BYTES_MAX} bytes"));
        }
        let mut parser = Parser {
            text,
            at: 0,
            depth: 0,
        };
        if !parser.take("$") {
            // Without its root a path is taken to start there.
            parser.at = 0;
            let rooted = format!("$.{}", text.trim_start_matches('.'));
            if text.is_empty() || text.starts_with('@') {
                return Err(parser.error("a path begins with '$'"));
            }
            return Self::parse(&rooted);
        }
        let (steps, function) = parser.steps()?;
        if !parser.rest().is_empty() {
            return Err(parser.error("'.', '[' or the end is expected"));
        }
        Ok(Self {
            text: text.into(),
            steps,
            function,
        })
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn error(&self, message: &str) -> String {
        let column = self
            .text
            .get(..self.at)
            .unwrap_or(self.text)
            .chars()
            .count()
            + 1;
        format!("JSONPath '{}', column {column}: {message}", self.text)
    }

    fn take(&mut self, prefix: &str) -> bool {
        let found = self.rest().starts_with(prefix);
        if found {
            self.at += prefix.len();
        }
        found
    }

    fn blank(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn expect(&mut self, what: &str) -> Result<(), String> {
        self.blank();
        if self.take(what) {
            Ok(())
        } else {
            Err(self.error(&format!("'{what}' is expected")))
        }
    }

    fn while_in(&mut self, wanted: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let end = rest
            .find(|character| !wanted(character))
            .unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    fn steps(&mut self) -> Result<(Vec<Step>, Option<Function>), String> {
        let mut steps = Vec::new();
        loop {
            if steps.len() > STEPS_WRITTEN_MAX {
                return Err(self.error(&format!("a path may have {STEPS_WRITTEN_MAX} steps")));
            }
            if self.take("..") {
                steps.push(Step::Deep);
                if self.rest().starts_with('[') {
                    continue;
                }
            } else if self.take(".") {
                // `$.[0]` is `$[0]`.
                if self.rest().starts_with('[') {
                    continue;
                }
            } else if self.take("[") {
                let step = self.bracket()?;
                steps.push(step);
                continue;
            } else {
                return Ok((steps, None));
            }
            if self.take("*") {
                steps.push(Step::Any);
                continue;
            }
            let name = self
                .while_in(|character| character.is_alphanumeric() || "_-@$:#".contains(character));
            if name.is_empty() {
                return Err(self.error("a name, '*' or '[' is expected"));
            }
            if self.take("()") {
                let function = function_named(name)
                    .ok_or_else(|| self.error(&format!("function '{name}()' is not known")))?;
                return Ok((steps, Some(function)));
            }
            steps.push(Step::Names(vec![name.into()]));
        }
    }

    /// After `[`.
    fn bracket(&mut self) -> Result<Step, String> {
        self.blank();
        if self.take("*") {
            self.expect("]")?;
            return Ok(Step::Any);
        }
        if self.take("?") {
            self.blank();
            self.expect("(")?;
            let filter = self.filter()?;
            self.expect(")")?;
            self.expect("]")?;
            return Ok(Step::Filter(filter));
        }
        if self.rest().starts_with(['\'', '"']) {
            let mut names = Vec::new();
            loop {
                self.blank();
                names.push(self.quoted()?.into());
                self.blank();
                if !self.take(",") || names.len() > STEPS_WRITTEN_MAX {
                    break;
                }
            }
            self.expect("]")?;
            return Ok(Step::Names(names));
        }
        // `[(@.length-1)]`: the last.
        if self.take("(") {
            self.blank();
            if !self.take("@.length") {
                return Err(self.error("a number, name, '*' or filter is expected"));
            }
            self.take("()");
            self.blank();
            let index = self.integer()?;
            self.expect(")")?;
            self.expect("]")?;
            return match index.filter(|index| *index < 0) {
                Some(index) => Ok(Step::Indexes(vec![index])),
                None => Err(self.error("a number is subtracted from the length here")),
            };
        }
        let first = self.integer()?;
        self.blank();
        if self.take(":") {
            let to = self.integer()?;
            self.blank();
            let step = if self.take(":") {
                self.integer()?.unwrap_or(1)
            } else {
                1
            };
            if step < 1 {
                return Err(self.error("the step of a slice is 1 or more"));
            }
            self.expect("]")?;
            return Ok(Step::Slice(first, to, step));
        }
        let mut indexes =
            vec![first.ok_or_else(|| self.error("a number, name, '*' or filter is expected"))?];
        while self.take(",") && indexes.len() <= STEPS_WRITTEN_MAX {
            let index = self.integer()?;
            indexes.push(index.ok_or_else(|| self.error("a number is expected"))?);
            self.blank();
        }
        self.expect("]")?;
        Ok(Step::Indexes(indexes))
    }

    fn integer(&mut self) -> Result<Option<i64>, String> {
        self.blank();
        let negative = self.take("-");
        self.blank();
        let digits = self.while_in(|character| character.is_ascii_digit());
        if digits.is_empty() {
            return if negative {
                Err(self.error("a number is expected"))
            } else {
                Ok(None)
            };
        }
        let number: i64 = digits
            .parse()
            .map_err(|_| self.error("the number is too large"))?;
        Ok(Some(if negative { -number } else { number }))
    }

    /// A text in either kind of quotes, in which a backslash makes the next character plain.
    fn quoted(&mut self) -> Result<String, String> {
        let Some(quote) = self
            .rest()
            .chars()
            .next()
            .filter(|quote| "'\"".contains(*quote))
        else {
            return Err(self.error("a name in quotes is expected"));
        };
        self.at += 1;
        let mut text = String::new();
        let mut characters = self.rest().char_indices();
        while let Some((index, character)) = characters.next() {
            match character {
                '\\' => text.extend(characters.next().map(|(_, escaped)| escaped)),
                character if character == quote => {
                    self.at += index + 1;
                    return Ok(text);
                }
                character => text.push(character),
            }
        }
        Err(self.error("the closing quote is missing"))
    }

    fn filter(&mut self) -> Result<Filter, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(&format!("filters are nested deeper than {DEPTH_MAX}")));
        }
        let mut any = vec![self.filter_all()?];
        loop {
            self.blank();
            if !self.take("||") {
                break;
            }
            any.push(self.filter_all()?);
        }
        self.depth -= 1;
        Ok(match any.len() {
            1 => any.swap_remove(0),
            _ => Filter::Any(any),
        })
    }

    fn filter_all(&mut self) -> Result<Filter, String> {
        let mut all = vec![self.filter_one()?];
        loop {
            self.blank();
            if !self.take("&&") {
                break;
            }
            all.push(self.filter_one()?);
        }
        Ok(match all.len() {
            1 => all.swap_remove(0),
            _ => Filter::All(all),
        })
    }

    fn filter_one(&mut self) -> Result<Filter, String> {
        self.blank();
        if self.take("!") {
            self.depth += 1;
            if self.depth > DEPTH_MAX {
                return Err(self.error(&format!("filters are nested deeper than {DEPTH_MAX}")));
            }
            let inner = self.filter_one()?;
            self.depth -= 1;
            return Ok(Filter::Not(Box::new(inner)));
        }
        if self.take("(") {
            let inner = self.filter()?;
            self.expect(")")?;
            return Ok(inner);
        }
        let left = self.operand()?;
        self.blank();
        if self.take("=~") {
            self.blank();
            return Ok(Filter::Matches(left, self.regex()?));
        }
        const OPERATORS: [(&str, Operator); 12] = [
            ("===", Operator::Equals),
            ("==", Operator::Equals),
            ("!=", Operator::NotEquals),
            ("<=", Operator::LessOrEqual),
            ("<", Operator::Less),
            (">=", Operator::GreaterOrEqual),
            (">", Operator::Greater),
            ("in ", Operator::In),
            ("nin ", Operator::NotIn),
            ("contains ", Operator::Contains),
            ("size ", Operator::Size),
            ("empty ", Operator::Empty),
        ];
        let Some((_, operator)) = OPERATORS.into_iter().find(|(symbol, _)| self.take(symbol))
        else {
            return Ok(Filter::Exists(left));
        };
        let right = self.operand()?;
        Ok(Filter::Compare(left, operator, right))
    }

    fn operand(&mut self) -> Result<Operand, String> {
        self.blank();
        let start = self.at;
        let from_root = self.rest().starts_with('$');
        if self.take("@") || self.take("$") {
            self.depth += 1;
            if self.depth > DEPTH_MAX {
                return Err(self.error(&format!("filters are nested deeper than {DEPTH_MAX}")));
            }
            let (steps, function) = self.steps()?;
            self.depth -= 1;
            let text = self.text.get(start..self.at).unwrap_or_default().into();
            return Ok(Operand::Path {
                from_root,
                path: JsonPath {
                    text,
                    steps,
                    function,
                },
            });
        }
        if self.take("[") {
            let mut list = Vec::new();
            loop {
                self.blank();
                if self.take("]") {
                    return Ok(Operand::List(list));
                }
                list.push(self.literal()?);
                self.blank();
                if !self.take(",") {
                    self.expect("]")?;
                    return Ok(Operand::List(list));
                }
                if list.len() > STEPS_WRITTEN_MAX {
                    return Err(self.error(&format!("a list may have {STEPS_WRITTEN_MAX} members")));
                }
            }
        }
        Ok(Operand::Literal(self.literal()?))
    }

    fn literal(&mut self) -> Result<Value, String> {
        if self.rest().starts_with(['\'', '"']) {
            return Ok(Value::String(self.quoted()?));
        }
        let start = self.at;
        let word = self
            .while_in(|character| character.is_ascii_alphanumeric() || "+-.".contains(character));
        match serde_json::from_str(word) {
            Ok(value) => Ok(value),
            Err(_) => {
                self.at = start;
                Err(self.error("a path, text in quotes, number, true, false or null is expected"))
            }
        }
    }

    /// `/pattern/i`
    fn regex(&mut self) -> Result<JavaRegex, String> {
        if !self.take("/") {
            return Err(self.error("a regular expression between '/' and '/' is expected"));
        }
        let rest = self.rest();
        let mut escaped = false;
        let end = rest.find(|character| {
            let ends = character == '/' && !escaped;
            escaped = character == '\\' && !escaped;
            ends
        });
        let Some(end) = end else {
            return Err(self.error("the regular expression has no closing '/'"));
        };
        let pattern = rest.get(..end).unwrap_or_default();
        self.at += end + 1;
        let flags = self.while_in(|character| character.is_ascii_lowercase());
        let pattern = if flags.is_empty() {
            pattern.to_owned()
        } else {
            format!("(?{flags}){pattern}")
        };
        JavaRegex::whole(&pattern).map_err(|reason| self.error(&reason))
    }
}

fn function_named(name: &str) -> Option<Function> {
    Some(match name {
        "length" | "size" => Function::Length,
        "min" => Function::Min,
        "max" => Function::Max,
        "sum" => Function::Sum,
        "avg" => Function::Average,
        "keys" => Function::Keys,
        "first" => Function::First,
        "last" => Function::Last,
        _ => return None,
    })
}
