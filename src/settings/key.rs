//! What is known of one configuration key, and the macro that declares a group of them.
//!
//! A group file states each key once: documentation, type and default. From that one statement come the typed struct,
//! the reader, the environment names, the `configuration` object of the Admin API, the suggestions for misspelt keys and
//! the manual. Refuses to know any particular key.

/// One configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The name in a configuration file.
    pub name: &'static str,
    /// What is read when nobody sets the key, in the form of the `.conf` file.
    pub default: &'static str,
    /// What the key does, for the manual. Markdown, without the allowed values.
    pub documentation: &'static str,
    /// Says which values are allowed, with their unit.
    pub allowed: fn() -> String,
    /// Further names under which Kong's users know it.
    pub aliases: &'static [&'static str],
    /// Whether the value must not be shown.
    pub secret: bool,
    /// Whether `reload` applies a new value to the running instance.
    pub reloadable: bool,
}

impl Key {
    pub(super) const fn new(
        name: &'static str,
        default: &'static str,
        documentation: &'static str,
        allowed: fn() -> String,
    ) -> Self {
        Self {
            name,
            default,
            documentation,
            allowed,
            aliases: &[],
            secret: false,
            reloadable: false,
        }
    }

    /// Also reads these names.
    pub(super) const fn also(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// Never shown: `GET /` answers asterisks.
    pub(super) const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// A running instance takes a new value with `reload`.
    pub(super) const fn reloads(mut self) -> Self {
        self.reloadable = true;
        self
    }

    /// Whether a name in a document means this key.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }
}

/// Declares a group of keys: a struct with a field for each, and its table.
///
/// A field reads `name: Type = "default";`, optionally followed by `=> secret() reloads() also(&["…"])` before the
/// semicolon. Its doc comment is its manual entry.
macro_rules! keys {
    (
        $(#[doc = $group_doc:literal])+
        pub struct $group:ident {
            $(
                $(#[doc = $doc:literal])+
                $name:ident : $type:ty = $default:literal $( => $( $mark:ident ( $($arg:expr)? ) )+ )? ;
            )+
        }
    ) => {
        $(#[doc = $group_doc])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $group {
            $(
                $(#[doc = $doc])+
                #[doc = concat!("\n\nDefault: `", $default, "`.")]
                pub $name: $type,
            )+
        }

        impl $group {
            /// The keys of this group, in the order of the manual.
            pub const KEYS: &'static [$crate::settings::key::Key] = &[
                $(
                    $crate::settings::key::Key::new(
                        stringify!($name),
                        $default,
                        concat!($($doc, "\n"),+),
                        <$type as $crate::settings::value::Value>::allowed,
                    ) $( $( .$mark($($arg)?) )+ )?,
                )+
            ];

            /// Reads every key of the group; what is wrong goes to the reader's diagnostics.
            pub(super) fn read(reader: &mut $crate::settings::read::Reader) -> Option<Self> {
                $( let $name = reader.value(stringify!($name)); )+
                Some(Self { $( $name: $name?, )+ })
            }

            /// The values as JSON, by key.
            pub(super) fn show(&self, into: &mut Vec<(&'static str, serde_json::Value)>) {
                $( into.push((stringify!($name), $crate::settings::value::Value::json(&self.$name))); )+
            }
        }
    };
}

/// Declares an enumeration whose words are the allowed values of a key.
///
/// After a `!` follow words that users of Kong may write and that are refused with a reason of their own.
macro_rules! choice {
    (
        $(#[doc = $enum_doc:literal])+
        pub enum $name:ident {
            $( $(#[doc = $doc:literal])+ $variant:ident = $word:literal, )+
            $( ! $( $refused:literal = $why:literal, )+ )?
        }
    ) => {
        $(#[doc = $enum_doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $( $(#[doc = $doc])+ $variant, )+
        }

        impl $name {
            /// The word that stands for it in a configuration.
            pub fn word(self) -> &'static str {
                match self {
                    $( Self::$variant => $word, )+
                }
            }

            /// The value that a word stands for.
            pub fn from_word(word: &str) -> Option<Self> {
                match word {
                    $( $word => Some(Self::$variant), )+
                    _ => None,
                }
            }
        }

        impl $crate::settings::value::Value for $name {
            fn parse(raw: &$crate::settings::value::Raw) -> Result<Self, String> {
                match raw.one()? {
                    $( $word => Ok(Self::$variant), )+
                    $( $( $refused => Err(concat!("'", $refused, "': ", $why).to_owned()), )+ )?
                    other => Err(format!("'{other}' is not known")),
                }
            }

            fn allowed() -> String {
                [$( concat!("`", $word, "`") ),+].join(", ")
            }

            fn json(&self) -> serde_json::Value {
                self.word().into()
            }
        }
    };
}

pub(super) use {choice, keys};
