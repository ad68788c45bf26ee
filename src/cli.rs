//! The command line: what can be typed, and which part of [`crate::app`] does it.
//!
//! Exit codes: 0 success, 1 failure, 2 bad usage. Errors go to standard error, one a line.
#![allow(
    clippy::print_stdout,
    reason = "standard output is what the commands are for"
)]

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

use self::connect::ConnectProxy;
use crate::app;
use crate::settings::{all_keys, manual::meaning};

mod connect;

/// An API gateway that speaks Kong.
#[derive(Parser)]
#[command(
    name = "sallyport",
    version,
    propagate_version = false,
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// Which configuration a command works with.
#[derive(Args, Clone)]
pub(crate) struct Configured {
    /// Configuration file, TOML, or Kong's form when its name ends in `.conf`.
    ///
    /// Without it: ./conf/sallyport.toml, then /etc/sallyport/sallyport.toml, then the defaults.
    #[arg(short = 'c', long = "conf", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Folder of the instance, instead of the configured `prefix`.
    #[arg(short = 'p', long, value_name = "FOLDER")]
    pub(crate) prefix: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway in the foreground until SIGINT or SIGTERM (graceful) or SIGQUIT (hand over).
    Start {
        #[command(flatten)]
        configured: Configured,
        /// Take the listening sockets over from the running instance of the same prefix.
        #[arg(long)]
        upgrade: bool,
    },
    /// Validate the configuration and declarative files; change nothing, tell all errors.
    Check {
        #[command(flatten)]
        configured: Configured,
        /// Declarative files, YAML or JSON.
        documents: Vec<PathBuf>,
    },
    /// Print the compiled plan as JSON, secrets as fingerprints.
    Plan {
        #[command(flatten)]
        configured: Configured,
        /// Declarative files instead of what the store holds or the configuration names.
        documents: Vec<PathBuf>,
    },
    /// Move declarative files into, or out of, the store.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Start this binary beside the running instance, hand the listening sockets over, drain the old one.
    Upgrade {
        #[command(flatten)]
        configured: Configured,
        /// The longest to wait until the new instance is ready, in seconds.
        #[arg(short, long, value_name = "SECONDS", default_value_t = 60)]
        timeout: u64,
    },
    /// Make the running instance read its configuration again.
    Reload {
        #[command(flatten)]
        configured: Configured,
    },
    /// Stop the running instance after the requests in flight, and wait for its end.
    Stop {
        #[command(flatten)]
        configured: Configured,
        /// The longest to wait before connections are cut, in seconds.
        #[arg(short, long, value_name = "SECONDS", default_value_t = 60)]
        timeout: u64,
    },
    /// As `stop`, with the shorter patience of Kong's command.
    Quit {
        #[command(flatten)]
        configured: Configured,
        /// The longest to wait before connections are cut, in seconds.
        #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
        timeout: u64,
    },
    /// Tell whether the instance runs and serves.
    Health {
        #[command(flatten)]
        configured: Configured,
    },
    /// Print the version.
    Version {
        /// Also print the versions of Kong and Pingora.
        #[arg(short, long)]
        all: bool,
    },
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page (roff), configuration keys included.
    Man,
    /// Work with Apigee's bundles.
    #[command(subcommand)]
    Apigee(ApigeeCommand),
    /// Work in a Consul service mesh.
    #[command(subcommand)]
    Connect(ConnectCommand),
}

#[derive(Subcommand)]
enum ConnectCommand {
    /// Run as the proxy of a service in the mesh, and as nothing else.
    Proxy(Box<ConnectProxy>),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Write the entities of a declarative file into the store; what the file does not name stays.
    #[command(name = "db_import")]
    Import {
        #[command(flatten)]
        configured: Configured,
        /// Declarative file, YAML or JSON.
        document: PathBuf,
    },
    /// Write what the store holds into a declarative file that must not exist yet.
    #[command(name = "db_export")]
    Export {
        #[command(flatten)]
        configured: Configured,
        /// The file to write.
        #[arg(default_value = "kong.yml")]
        document: PathBuf,
    },
}

#[derive(Subcommand)]
enum ApigeeCommand {
    /// Import a bundle into the running instance and deploy it in place of the revision that runs.
    ///
    /// With `admin_auth = basic` the variable SALLYPORT_ADMIN_CREDENTIALS holds `USER:PASSWORD`.
    Deploy {
        #[command(flatten)]
        configured: Configured,
        /// Folder or ZIP file.
        bundle: PathBuf,
        /// Organisation; the configured one when none is named.
        #[arg(long, value_name = "NAME")]
        org: Option<String>,
        /// Environment; the first configured one when none is named.
        #[arg(long, value_name = "NAME")]
        env: Option<String>,
    },
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse_from(connect::two_dashes(std::env::args_os())) {
        Ok(arguments) => arguments,
        Err(refusal) => {
            let wrong_usage = refusal.use_stderr();
            // A closed pipe is the reader's wish.
            let _ = refusal.print();
            return if wrong_usage {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            app::failure::tell(&failure);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Start {
            configured,
            upgrade,
        } => app::start::run(&configured, upgrade),
        Command::Check {
            configured,
            documents,
        } => app::documents::check(&configured, &documents),
        Command::Plan {
            configured,
            documents,
        } => print(&app::documents::plan(&configured, &documents)?),
        Command::Config(ConfigCommand::Import {
            configured,
            document,
        }) => app::documents::import(&configured, &document),
        Command::Config(ConfigCommand::Export {
            configured,
            document,
        }) => app::documents::export(&configured, &document),
        Command::Upgrade {
            configured,
            timeout,
        } => app::instance::upgrade(&configured, Duration::from_secs(timeout)),
        Command::Reload { configured } => app::instance::reload(&configured),
        Command::Stop {
            configured,
            timeout,
        }
        | Command::Quit {
            configured,
            timeout,
        } => app::instance::stop(&configured, Duration::from_secs(timeout)),
        Command::Health { configured } => print(&app::instance::health(&configured)?),
        Command::Version { all } => print(&app::versions(all)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "sallyport", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
        Command::Man => print(&manual_page()?),
        Command::Apigee(ApigeeCommand::Deploy {
            configured,
            bundle,
            org,
            env,
        }) => print(&app::deploy::run(
            &configured,
            &bundle,
            org.as_deref(),
            env.as_deref(),
        )?),
        Command::Connect(ConnectCommand::Proxy(proxy)) => {
            let proxy_of = proxy.proxy_of()?;
            app::mesh::run(&proxy.configured, proxy_of)
        }
    }
}

/// Prints to standard output; a reader that closes its pipe early is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| {
        if text.ends_with('\n') {
            Ok(())
        } else {
            out.write_all(b"\n")
        }
    });
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

fn manual_page() -> anyhow::Result<String> {
    let command = Arguments::command();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for subcommand in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        let heading = format!(".SH COMMAND {}\n", subcommand.get_name().to_uppercase());
        page.extend_from_slice(heading.as_bytes());
        let man = clap_mangen::Man::new(
            subcommand
                .clone()
                .bin_name(format!("sallyport {}", subcommand.get_name())),
        );
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
    }
    page.extend_from_slice(b".SH CONFIGURATION KEYS\n");
    for key in all_keys() {
        let default = if key.default.is_empty() {
            "none"
        } else {
            key.default
        };
        let text = format!(
            "{}\nDefault: {}. Allowed: {}. Variable: SALLYPORT_{}.",
            meaning(key),
            default,
            (key.allowed)(),
            key.name.to_uppercase()
        );
        page.extend_from_slice(format!(".TP\n.B {}\n{}\n", key.name, roff(&text)).as_bytes());
    }
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// Text as roff takes it: no line begins with a control character, backslashes and hyphens stand for themselves.
fn roff(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('`', "");
    let lines = escaped.lines().map(|line| {
        if line.starts_with(['.', '\'']) {
            format!("\\&{line}")
        } else {
            line.into()
        }
    });
    lines.collect::<Vec<String>>().join("\n.br\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_manual_page_names_every_key() {
        let page = manual_page().unwrap();
        for key in all_keys() {
            assert!(page.contains(&format!(".B {}\n", key.name)), "{}", key.name);
        }
    }
}
