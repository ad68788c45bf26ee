//! The walk-through of `docs/CONNECT.md`, typed as it stands there, but on other ports.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::harness::consul::{consul, free_ports};
use crate::harness::eventually;

/// The commands below a heading, one a line, indented.
fn commands<'a>(page: &'a str, after: &str) -> Vec<&'a str> {
    let (_, page) = page.split_once(after).expect("the words are there");
    page.lines()
        .skip_while(|line| !line.starts_with("    "))
        .take_while(|line| line.starts_with("    "))
        .map(str::trim)
        .collect()
}

/// A shell in a process group of its own, which ends with everything that it has started.
struct Shell {
    folder: tempfile::TempDir,
    ports: BTreeMap<&'static str, u16>,
    agent_flags: String,
    running: Vec<Child>,
}

impl Drop for Shell {
    fn drop(&mut self) {
        for child in &mut self.running {
            // The group's number is that of its first process.
            let group = format!("-{}", child.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            let _ = child.wait();
        }
    }
}

impl Shell {
    fn new() -> Self {
        let [http, public_web, public_shop, web, shop, way] = free_ports();
        let [lan, wan, server] = free_ports();
        let ports = BTreeMap::from([
            ("8500", http),
            ("21001", public_web),
            ("21002", public_shop),
            ("9001", web),
            ("9002", shop),
            ("9191", way),
        ]);
        Self {
            folder: tempfile::tempdir().unwrap(),
            ports,
            agent_flags: format!(
                "-http-port={http} -serf-lan-port={lan} -serf-wan-port={wan} -server-port={server} \
                 -dns-port=-1 -grpc-port=-1"
            ),
            running: Vec::new(),
        }
    }

    /// The line with our ports in place of those that are written.
    fn with_ports(&self, line: &str) -> String {
        let mut text = String::new();
        let mut rest = line;
        while let Some(start) = rest.find(|letter: char| letter.is_ascii_digit()) {
            let (before, number) = rest.split_at(start);
            let end = number.find(|letter: char| !letter.is_ascii_digit());
            let (number, after) = number.split_at(end.unwrap_or(number.len()));
            text.push_str(before);
            match self.ports.get(number) {
                Some(port) => text.push_str(&port.to_string()),
                None => text.push_str(number),
            }
            rest = after;
        }
        text + rest
    }

    fn command(&self, line: &str) -> Command {
        let flags = format!("agent -dev {}", self.agent_flags);
        let line = self.with_ports(line).replace("agent -dev", &flags);
        let own = Path::new(env!("CARGO_BIN_EXE_sallyport"));
        let folders = [own.parent(), consul().parent()].map(|folder| {
            let folder = folder.expect("a folder");
            folder.display().to_string()
        });
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &line])
            .env("PATH", format!("{}:{path}", folders.join(":")))
            .env(
                "CONSUL_HTTP_ADDR",
                format!("127.0.0.1:{}", self.ports["8500"]),
            )
            .env("SALLYPORT_STATUS_LISTEN", "off")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        shell
    }

    /// Types a line; what ends with `&` goes on. Gives what the others print, none if they fail.
    fn types(&mut self, line: &str) -> Option<String> {
        if let Some(line) = line.strip_suffix('&') {
            let mut shell = self.command(&format!("exec {line}"));
            let child = shell.stdout(Stdio::null()).process_group(0).spawn();
            self.running.push(child.unwrap());
            return Some(String::new());
        }
        let output = self.command(line).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(text)
    }
}

#[test]
fn the_walk_through_leads_through_the_mesh() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CONNECT.md");
    let page = std::fs::read_to_string(page).unwrap();
    let first = commands(&page, "## From nothing to a request through the mesh");
    assert!((5..10).contains(&first.len()), "{first:?}");
    let mut shell = Shell::new();
    std::fs::write(shell.folder.path().join("hello"), "here").unwrap();
    let (last, before) = first.split_last().unwrap();
    for line in before {
        // A reader types no faster than programs start.
        eventually(line, || {
            let answer = shell.types(line)?;
            (!answer.contains("refused")).then_some(())
        });
    }
    eventually(last, || {
        let answer = shell.types(last)?;
        answer.contains("hello").then_some(())
    });
    let [deny, ask, allow] = commands(&page, "Now forbid it")[..] else {
        panic!("three commands");
    };
    assert_eq!(ask, *last);
    shell.types(deny).expect("an intention");
    eventually("the call is refused", || {
        shell.types(ask).is_none().then_some(())
    });
    shell.types(allow).expect("no intention");
    eventually("the call is allowed", || {
        shell.types(ask)?.contains("hello").then_some(())
    });
}
