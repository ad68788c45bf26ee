//! Files in the protocol buffers' language, compiled when a plugin that names one is configured.
//!
//! Imports are looked for beside the file. What Google publishes for every such file (`google/protobuf/…`) and the two
//! files that describe HTTP rules (`google/api/annotations.proto`, `google/api/http.proto`) are built in.

use std::cell::Cell;
use std::fmt;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

use prost_reflect::DescriptorPool;
use protox::file::{File, FileResolver, GoogleFileResolver};

use crate::base::bounded::read_at_most;

/// Longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Most files that one file may lead to, itself included.
const FILES_MAX: usize = 128;
/// How deep braces and brackets may be nested: values of options are read recursively.
const NESTING_MAX: usize = 64;
/// Longest message of the compiler that is repeated, in characters.
const MESSAGE_CHARACTERS_MAX: usize = 400;

const ANNOTATIONS: &str = include_str!("proto/google/api/annotations.proto");
const HTTP: &str = include_str!("proto/google/api/http.proto");

/// Everything that the file at this path defines and imports. Relative paths start at the folder that the gateway was
/// started in (Kong: likewise). The error names file and line.
pub(crate) fn compile(path: &str) -> Result<Compiled, String> {
    let place = Path::new(path);
    if place.extension().is_none_or(|kind| kind != "proto") {
        return Err(format!("{path}: the name of the file must end in '.proto'"));
    }
    let source = read(place).map_err(|reason| format!("{path}: {reason}"))?;
    let resolver = Resolver {
        folder: place.parent().unwrap_or(Path::new("")).to_owned(),
        name: path.to_owned(),
        source,
        google: GoogleFileResolver::new(),
        opened: Cell::new(0),
    };
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_source_info(true);
    // The compiler's debug form is the one with file and line.
    compiler
        .open_file(path)
        .map_err(|error| shortened(&format!("{error:?}")))?;
    Ok(Compiled {
        pool: compiler.descriptor_pool(),
        name: path.to_owned(),
    })
}

/// A compiled file with its imports.
pub(crate) struct Compiled {
    pub(crate) pool: DescriptorPool,
    /// Under which the file itself is found in the pool.
    pub(crate) name: String,
}

impl Compiled {
    /// Where something is defined, as `FILE:LINE`. `path` is the descriptor's own.
    pub(crate) fn place(&self, file: &prost_reflect::FileDescriptor, path: &[i32]) -> String {
        let info = file.file_descriptor_proto().source_code_info.as_ref();
        let span = info
            .and_then(|info| info.location.iter().find(|location| location.path == path))
            .and_then(|location| location.span.first());
        match span {
            Some(line) => format!("{}:{}", file.name(), line.saturating_add(1)),
            None => file.name().to_owned(),
        }
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MESSAGE_CHARACTERS_MAX) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

struct Resolver {
    folder: PathBuf,
    name: String,
    source: String,
    google: GoogleFileResolver,
    opened: Cell<usize>,
}

impl FileResolver for Resolver {
    fn resolve_path(&self, path: &Path) -> Option<String> {
        (path == Path::new(&self.name)).then(|| self.name.clone())
    }

    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        self.opened.set(self.opened.get() + 1);
        if self.opened.get() > FILES_MAX {
            return refuse(format!(
                "{}: it leads to more than {FILES_MAX} files",
                self.name
            ));
        }
        match name {
            "google/api/annotations.proto" => return parse(name, ANNOTATIONS),
            "google/api/http.proto" => return parse(name, HTTP),
            _ if name == self.name => return parse(name, &self.source),
            _ => {}
        }
        match self.google.open_file(name) {
            Err(error) if error.is_file_not_found() => {}
            known => return known,
        }
        let relative = Path::new(name);
        let inside = relative
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !inside || relative.extension().is_none_or(|kind| kind != "proto") {
            return refuse(format!(
                "{name}: an import must lead to a file below the folder of {}, and end in '.proto'",
                self.name
            ));
        }
        match read(&self.folder.join(relative)) {
            Ok(source) => parse(name, &source),
            Err(Unread::Missing) => Err(protox::Error::file_not_found(name)),
            Err(reason) => refuse(format!("{name}: {reason}")),
        }
    }
}

fn parse(name: &str, source: &str) -> Result<File, protox::Error> {
    if is_nested_too_deep(source) {
        return refuse(format!(
            "{name}: braces and brackets are nested deeper than {NESTING_MAX}"
        ));
    }
    File::from_source(name, source)
}

/// Counts in comments and texts too: nobody writes that many of them there.
fn is_nested_too_deep(source: &str) -> bool {
    let mut depth = 0usize;
    source.bytes().any(|byte| {
        match byte {
            b'{' | b'[' | b'<' | b'(' => depth += 1,
            b'}' | b']' | b'>' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > NESTING_MAX
    })
}

/// Why a file was not read.
enum Unread {
    Missing,
    Failed(std::io::Error),
    NoFile,
    TooLong,
    NoText,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is no such file"),
            Self::Failed(error) => write!(f, "cannot be read: {error}"),
            Self::NoFile => f.write_str("is not an ordinary file"),
            Self::TooLong => write!(f, "is longer than {FILE_BYTES_MAX} bytes"),
            Self::NoText => f.write_str("is not text in UTF-8"),
        }
    }
}

impl From<std::io::Error> for Unread {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::Missing,
            _ => Self::Failed(error),
        }
    }
}

fn read(path: &Path) -> Result<String, Unread> {
    let file = std::fs::File::options()
        .read(true)
        // A pipe would keep whoever opens it waiting.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(Unread::NoFile);
    }
    let bytes = read_at_most(file, FILE_BYTES_MAX)?.ok_or(Unread::TooLong)?;
    String::from_utf8(bytes).map_err(|_| Unread::NoText)
}

fn refuse<T>(reason: String) -> Result<T, protox::Error> {
    Err(protox::Error::new(Refusal(reason)))
}

/// An error whose debug form is for readers, as the compiler's own are.
struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
            let path = self.0.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, content).unwrap();
            path.to_str().unwrap().to_owned()
        }

        /// Compiles, and gives the complaint without the folder.
        fn complaint(&self, name: &str, content: impl AsRef<[u8]>) -> String {
            let path = self.write(name, content);
            let error = compile(&path).err().unwrap_or_default();
            error.replace(&format!("{}/", self.0.path().display()), "")
        }
    }

    #[test]
    fn imports_are_found_beside_the_file_and_built_in() {
        let folder = Folder::new();
        folder.write("shop/item.proto", "syntax = \"proto3\"; message Item {}");
        let path = folder.write(
            "a.proto",
            "syntax = \"proto3\"; import \"shop/item.proto\"; import \"google/api/annotations.proto\";\n\
             import \"google/protobuf/timestamp.proto\"; message A { Item item = 1; google.protobuf.Timestamp at = 2; }",
        );
        let compiled = compile(&path).unwrap();
        assert!(compiled.pool.get_message_by_name("A").is_some());
        let rule = compiled.pool.get_extension_by_name("google.api.http");
        assert_eq!(rule.unwrap().number(), 72_295_728);
    }

    #[test]
    fn what_is_wrong_is_told_with_file_and_line() {
        let folder = Folder::new();
        let deep = format!("option a = {};", "{a:".repeat(100_000));
        let long = vec![b' '; FILE_BYTES_MAX as usize + 1];
        let cases: [(&str, &[u8], &str); 10] = [
            (
                "a.proto",
                b"syntax = \"proto3\";\nmessage A {\n  Nobody a = 1;\n}",
                "a.proto:3:3: ",
            ),
            (
                "b.proto",
                b"syntax = \"proto3\";\nmassage A {}",
                "b.proto:2:1: ",
            ),
            (
                "c.proto",
                b"syntax = \"proto3\";\nimport \"gone.proto\";",
                "c.proto:2:1: import 'gone.proto' not found",
            ),
            (
                "d.txt",
                b"",
                "d.txt: the name of the file must end in '.proto'",
            ),
            ("e.proto", &long, "e.proto: is longer than 1048576 bytes"),
            ("f.proto", b"\xff", "f.proto: is not text in UTF-8"),
            (
                "g.proto",
                deep.as_bytes(),
                "g.proto: braces and brackets are nested deeper than 64",
            ),
            ("h.proto", b"import \"../x.proto\";", "h.proto:1:8: "),
            ("i.proto", b"import \"/etc/passwd\";", "i.proto:1:8: "),
            ("j.proto", b"import \"broken.proto\";", "broken.proto:1:1: "),
        ];
        folder.write("broken.proto", "}");
        for (name, content, expected) in cases {
            let complaint = folder.complaint(name, content);
            assert!(complaint.starts_with(expected), "{name}: {complaint}");
        }
        let missing = compile("nowhere/at-all.proto").err().unwrap();
        assert_eq!(missing, "nowhere/at-all.proto: there is no such file");
        std::fs::create_dir(folder.0.path().join("k.proto")).unwrap();
        let path = folder.0.path().join("k.proto");
        let complaint = compile(path.to_str().unwrap()).err().unwrap();
        assert!(
            complaint.ends_with("is not an ordinary file"),
            "{complaint}"
        );
    }

    #[test]
    fn too_many_files_and_circles_are_refused() {
        let folder = Folder::new();
        for number in 0..=FILES_MAX {
            folder.write(
                &format!("n{number}.proto"),
                format!("import \"n{}.proto\";", number + 1),
            );
        }
        let complaint = folder.complaint("start.proto", "import \"n0.proto\";");
        assert!(complaint.contains("more than 128 files"), "{complaint}");
        folder.write("y.proto", "import \"x.proto\";");
        let complaint = folder.complaint("w.proto", "import \"x.proto\";");
        assert!(!complaint.is_empty());
        folder.write("x.proto", "import \"y.proto\";");
        let complaint = folder.complaint("w.proto", "import \"x.proto\";");
        assert!(complaint.contains("cycle"), "{complaint}");
    }

    /// Damaged files are refused or accepted, and end no thread.
    #[test]
    fn damaged_files_do_no_harm() {
        let folder = Folder::new();
        let sound = concat!(
            "syntax = \"proto3\"; package a.b; import \"google/api/annotations.proto\";\n",
            "message M { map<string, M> m = 1; oneof o { int32 i = 2; bytes b = 3; } repeated E e = 4; reserved 9 to 12; }\n",
            "enum E { Z = 0; N = -1; } service S { rpc C(stream M) returns (M) { option (google.api.http) = ",
            "{ post: \"/v1/{m.i=x/*}\" body: \"*\" additional_bindings { custom: { kind: \"X\" path: \"/y\" } } }; } }\n",
        );
        assert_eq!(folder.complaint("sound.proto", sound), "");
        let pieces = [
            "{",
            "}",
            "\"",
            "=",
            "-1",
            "99999999999",
            "\u{0}",
            "<",
            "import",
            "option (",
            "//",
            "'\\xff'",
        ];
        for (index, piece) in pieces.iter().cycle().take(180).enumerate() {
            let mut text = sound.to_owned();
            let at = index * 37 % text.len();
            text.replace_range(at..at + 1 + index % 3, piece);
            // Whatever it says.
            let _ = folder.complaint("damaged.proto", text);
        }
    }
}
