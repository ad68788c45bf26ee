//! Java's regular expression syntax in terms of `fancy-regex`.
//!
//! Owns the differences: classes are ASCII unless said otherwise, `\p{Alpha}` and its POSIX kin, quotation, unions and
//! intersections, what `.` leaves out. Refuses by name what has no counterpart. It checks only what it must understand;
//! the engine checks the rest.

use super::PATTERN_BYTES_MAX;

/// Nested groups and classes.
const DEPTH_MAX: usize = 100;
/// The product of nested counts such as `(a{100}){100}`: the engine goes round that often without backtracking.
const REPEATS_MAX: u64 = 100_000;
/// What `.` does not match in Java.
const ANY: &str = r"[^\n\r\x{85}\x{2028}\x{2029}]";

/// Rewrites a pattern.
pub(super) fn translate(pattern: &str) -> Result<String, String> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!(
            "a regular expression may have {PATTERN_BYTES_MAX} bytes"
        ));
    }
    let mut translator = Translator {
        rest: pattern,
        out: String::with_capacity(pattern.len() + 16),
        flags: vec![Flags::default()],
        repeats: vec![1],
        last_repeats: 1,
    };
    translator
        .run()
        .map_err(|reason| format!("regular expression '{pattern}': {reason}"))?;
    Ok(translator.out)
}

/// Flags in force in a group.
#[derive(Clone, Copy, Default)]
struct Flags {
    /// `s`: `.` matches line ends.
    dot_all: bool,
    /// `x`: white space and comments are ignored.
    comments: bool,
}

struct Translator<'p> {
    rest: &'p str,
    out: String,
    /// One entry per open group, the whole pattern first.
    flags: Vec<Flags>,
    /// For each open group, the greatest number of rounds of anything in it.
    repeats: Vec<u64>,
    /// The same for what a count here would repeat.
    last_repeats: u64,
}

impl Translator<'_> {
    fn next(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let next = characters.next();
        self.rest = characters.as_str();
        next
    }

    fn take(&mut self, prefix: &str) -> bool {
        let rest = self.rest.strip_prefix(prefix);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn flags(&self) -> Flags {
        self.flags.last().copied().unwrap_or_default()
    }

    fn run(&mut self) -> Result<(), String> {
        while let Some(character) = self.next() {
            if !matches!(character, '{' | '*' | '+' | '?' | ')') {
                self.last_repeats = 1;
            }
            match character {
                '{' => self.count()?,
                '\\' => self.escape(false)?,
                '[' => self.class(0)?,
                '.' if self.flags().dot_all => self.out.push_str(r"(?s:.)"),
                '.' => self.out.push_str(ANY),
                '(' => self.group()?,
                ')' => {
                    if self.flags.len() == 1 {
                        return Err("')' closes nothing".to_owned());
                    }
                    self.flags.pop();
                    self.last_repeats = self.repeats.pop().unwrap_or(1);
                    self.note_repeats();
                    self.out.push(')');
                }
                '#' if self.flags().comments => {
                    while self.next().is_some_and(|character| character != '\n') {}
                }
                character if self.flags().comments && character.is_ascii_whitespace() => {}
                '#' | '&' | '~' | ' ' => self.literal(character),
                character => self.out.push(character),
            }
        }
        if self.flags.len() > 1 {
            return Err("')' is missing".to_owned());
        }
        Ok(())
    }

    /// After `{`, which repeats when numbers follow.
    fn count(&mut self) -> Result<(), String> {
        self.out.push('{');
        let inner = self.rest.split_once('}').map_or("", |(inner, _)| inner);
        let mut numbers = inner
            .split(',')
            .filter(|number| !number.is_empty())
            .map(str::parse::<u64>);
        let (Some(Ok(least)), most) = (numbers.next(), numbers.next()) else {
            return Ok(());
        };
        let rounds = most.and_then(Result::ok).unwrap_or(least).max(1);
        self.last_repeats = self.last_repeats.saturating_mul(rounds);
        if self.last_repeats > REPEATS_MAX {
            return Err(format!(
                "'{{{inner}}}' repeats more than {REPEATS_MAX} times in all"
            ));
        }
        self.note_repeats();
        self.out.push_str(inner);
        self.out.push('}');
        self.rest = self.rest.get(inner.len() + 1..).unwrap_or_default();
        Ok(())
    }

    fn note_repeats(&mut self) {
        if let Some(all) = self.repeats.last_mut() {
            *all = self.last_repeats.max(*all);
        }
    }

    /// Opens a group in which these flags hold.
    fn open(&mut self, flags: Flags) {
        self.flags.push(flags);
        self.repeats.push(1);
    }

    /// A character that stands for itself.
    fn literal(&mut self, character: char) {
        if character.is_ascii_alphanumeric() || !character.is_ascii() {
            self.out.push(character);
        } else {
            self.out.push_str(&format!(r"\x{{{:x}}}", character as u32));
        }
    }

    /// After `(`.
    fn group(&mut self) -> Result<(), String> {
        if self.flags.len() > DEPTH_MAX {
            return Err(format!("groups are nested deeper than {DEPTH_MAX}"));
        }
        let outer = self.flags();
        if !self.take("?") {
            self.out.push('(');
            self.open(outer);
            return Ok(());
        }
        for kind in ["<=", "<!", "=", "!", ">", ":"] {
            if self.take(kind) {
                self.out.push_str("(?");
                self.out.push_str(kind);
                self.open(outer);
                return Ok(());
            }
        }
        if self.take("<") {
            let (name, rest) = self
                .rest
                .split_once('>')
                .ok_or("a group's name has no '>'")?;
            let legal = name.starts_with(|first: char| first.is_ascii_alphabetic())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
            if !legal {
                return Err(format!(
                    "'{name}' is not a group's name, it has letters and digits"
                ));
            }
            self.rest = rest;
            self.out.push_str(&format!("(?<{name}>"));
            self.open(outer);
            return Ok(());
        }
        self.inline_flags(outer)
    }

    /// `(?i)`, `(?s-i:`, after `(?`.
    fn inline_flags(&mut self, outer: Flags) -> Result<(), String> {
        let mut inner = outer;
        let (mut on, mut off) = (String::new(), String::new());
        let mut value = true;
        loop {
            let Some(character) = self.next() else {
                return Err("')' is missing".to_owned());
            };
            match character {
                ':' | ')' => {
                    let minus = if off.is_empty() { "" } else { "-" };
                    let has_flags = !on.is_empty() || !off.is_empty();
                    if character == ':' {
                        self.out.push_str(&format!("(?{on}{minus}{off}:"));
                        self.open(inner);
                    } else {
                        if has_flags {
                            self.out.push_str(&format!("(?{on}{minus}{off})"));
                        }
                        if let Some(flags) = self.flags.last_mut() {
                            *flags = inner;
                        }
                    }
                    return Ok(());
                }
                '-' => value = false,
                's' => inner.dot_all = value,
                'x' => inner.comments = value,
                'i' | 'm' => if value { &mut on } else { &mut off }.push(character),
                // Case folding is by Unicode anyway; lines end at every terminator; classes stay as translated.
                'u' | 'd' | 'U' => {}
                other => {
                    return Err(format!(
                        "'{other}' is not a flag, flags are i, m, s, x, u, d, U"
                    ));
                }
            }
        }
    }

    /// After a backslash, in a class or outside.
    fn escape(&mut self, in_class: bool) -> Result<(), String> {
        let Some(character) = self.next() else {
            return Err("a backslash ends it".to_owned());
        };
        match character {
            'Q' => {
                let (quoted, rest) = self.rest.split_once(r"\E").unwrap_or((self.rest, ""));
                self.rest = rest;
                quoted.chars().for_each(|character| self.literal(character));
            }
            'E' => {}
            'd' => self.set("0-9", false, in_class),
            'D' => self.set("0-9", true, in_class),
            'w' => self.set("a-zA-Z0-9_", false, in_class),
            'W' => self.set("a-zA-Z0-9_", true, in_class),
            's' => self.set(r"\t-\r\x20", false, in_class),
            'S' => self.set(r"\t-\r\x20", true, in_class),
            'h' => self.set(HORIZONTAL, false, in_class),
            'H' => self.set(HORIZONTAL, true, in_class),
            'v' => self.set(VERTICAL, false, in_class),
            'V' => self.set(VERTICAL, true, in_class),
            'p' => self.property(false, in_class)?,
            'P' => self.property(true, in_class)?,
            't' | 'n' | 'r' | 'f' => {
                self.out.push('\\');
                self.out.push(character);
            }
            'a' => self.out.push_str(r"\x07"),
            'e' => self.out.push_str(r"\x1B"),
            'x' | 'u' | '0' | 'c' => {
                let code = self.code(character)?;
                self.literal(code);
            }
            'R' if !in_class => self.out.push_str(r"(?:\r\n|[\n-\r\x{85}\x{2028}\x{2029}])"),
            'b' | 'B' | 'A' | 'z' if !in_class => {
                self.out.push('\\');
                self.out.push(character);
            }
            'Z' if !in_class => self
                .out
                .push_str(r"(?=(?:\r\n|[\n\r\x{85}\x{2028}\x{2029}])?\z)"),
            'k' if !in_class => {
                let name = self
                    .rest
                    .strip_prefix('<')
                    .and_then(|rest| rest.split_once('>'));
                let (name, rest) = name.ok_or(r"'\k' needs a group's name in '<' and '>'")?;
                self.rest = rest;
                self.out.push_str(&format!(r"\k<{name}>"));
            }
            '1'..='9' if !in_class => self.out.push_str(&format!(r"\{character}")),
            character if character.is_ascii_alphanumeric() => {
                return Err(format!(r"'\{character}' is not supported"));
            }
            character => self.literal(character),
        }
        Ok(())
    }

    /// Members of a class, as a class of their own outside of one.
    fn set(&mut self, members: &str, negated: bool, in_class: bool) {
        match (negated, in_class) {
            (false, true) => self.out.push_str(members),
            (true, _) => self.out.push_str(&format!("[^{members}]")),
            (false, false) => self.out.push_str(&format!("[{members}]")),
        }
    }

    fn code(&mut self, kind: char) -> Result<char, String> {
        let wrong = || format!(r"'\{kind}' is not followed by the code of a character");
        if kind == 'c' {
            let letter = self.next().filter(char::is_ascii).ok_or_else(wrong)?;
            return Ok((letter as u8 ^ 64) as char);
        }
        let in_braces = self
            .rest
            .strip_prefix('{')
            .filter(|_| kind == 'x')
            .and_then(|rest| rest.split_once('}'));
        if let Some((digits, rest)) = in_braces {
            self.rest = rest;
            let code = u32::from_str_radix(digits, 16).ok();
            return code.and_then(char::from_u32).ok_or_else(wrong);
        }
        let (length, radix) = match kind {
            'x' => (2, 16),
            'u' => (4, 16),
            _ => (
                self.rest
                    .bytes()
                    .take(3)
                    .take_while(|byte| matches!(byte, b'0'..=b'7'))
                    .count(),
                8,
            ),
        };
        let digits = self.rest.get(..length).filter(|digits| {
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        let code = digits.and_then(|digits| u32::from_str_radix(digits, radix).ok());
        self.rest = self.rest.get(length..).unwrap_or_default();
        code.and_then(char::from_u32).ok_or_else(wrong)
    }

    /// After `\p` or `\P`.
    fn property(&mut self, negated: bool, in_class: bool) -> Result<(), String> {
        let name = if self.rest.starts_with('{') {
            let inner = self.rest.get(1..).and_then(|rest| rest.split_once('}'));
            let (name, rest) = inner.ok_or(r"'\p{' has no '}'")?;
            self.rest = rest;
            name.to_owned()
        } else {
            self.next()
                .map(String::from)
                .ok_or(r"'\p' names no class")?
        };
        if let Some((_, members)) = POSIX.iter().find(|(known, _)| *known == name) {
            self.set(members, negated, in_class);
            return Ok(());
        }
        if name.starts_with("In") || name.starts_with("blk=") || name.starts_with("block=") {
            return Err(format!(
                "blocks such as '{name}' are not supported, use a script such as IsGreek"
            ));
        }
        let unicode = name
            .strip_prefix("Is")
            .or_else(|| name.strip_prefix("script="))
            .or_else(|| name.strip_prefix("general_category="))
            .unwrap_or(&name);
        let unicode = JAVA_METHODS
            .iter()
            .find(|(known, _)| *known == unicode)
            .map_or(unicode, |(_, unicode)| unicode);
        let letter = if negated { 'P' } else { 'p' };
        self.out.push_str(&format!(r"\{letter}{{{unicode}}}"));
        Ok(())
    }

    /// After `[`.
    fn class(&mut self, depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("classes are nested deeper than {DEPTH_MAX}"));
        }
        self.out.push('[');
        if self.take("^") {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let Some(character) = self.next() else {
                return Err("']' is missing".to_owned());
            };
            match character {
                ']' if !first => {
                    self.out.push(']');
                    return Ok(());
                }
                '[' => self.class(depth + 1)?,
                '\\' => self.escape(true)?,
                '&' if self.take("&") => self.out.push_str("&&"),
                '-' => {
                    let is_range = !first
                        && !self.rest.starts_with([']', '[', '-'])
                        && !self.rest.starts_with("&&");
                    if is_range && !self.out.ends_with(['[', ']', '&']) {
                        self.out.push('-');
                    } else {
                        self.literal('-');
                    }
                }
                character if self.flags().comments && character.is_ascii_whitespace() => {}
                character => self.literal(character),
            }
            first = false;
        }
    }
}

const HORIZONTAL: &str = r"\x20\t\x{A0}\x{1680}\x{180e}\x{2000}-\x{200a}\x{202f}\x{205f}\x{3000}";
const VERTICAL: &str = r"\n-\r\x{85}\x{2028}\x{2029}";

/// Java's POSIX classes: ASCII only.
const POSIX: [(&str, &str); 13] = [
    ("Lower", "a-z"),
    ("Upper", "A-Z"),
    ("ASCII", r"\x00-\x7F"),
    ("Alpha", "a-zA-Z"),
    ("Digit", "0-9"),
    ("Alnum", "a-zA-Z0-9"),
    ("Punct", r"!-/:-@\[-`{-~"),
    ("Graph", "!-~"),
    ("Print", r"\x20-~"),
    ("Blank", r"\x20\t"),
    ("Cntrl", r"\x00-\x1F\x7F"),
    ("XDigit", "0-9a-fA-F"),
    ("Space", r"\t-\r\x20"),
];

/// Classes named after methods of `java.lang.Character`.
const JAVA_METHODS: [(&str, &str); 4] = [
    ("javaLowerCase", "Lowercase"),
    ("javaUpperCase", "Uppercase"),
    ("javaWhitespace", "White_Space"),
    ("javaMirrored", "Bidi_Mirrored"),
];
