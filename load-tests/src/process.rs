//! Child processes: start pinned to a core, account for their CPU time and memory, end them.
//!
//! Figures come from `/proc`, for the whole process tree, so that nginx's workers count as nginx.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Core of every proxy under test.
pub(crate) const PROXY_CORE: usize = 0;
/// Core of the origin and of the load generators.
pub(crate) const LOAD_CORE: usize = 1;
/// Processes in one tree at most; a larger answer means that the walk went astray.
const TREE_MAX: usize = 256;
/// Time that a child has to end in order, and how often it is looked for.
const END_TIMEOUT: Duration = Duration::from_secs(30);
const END_POLL: Duration = Duration::from_millis(20);
/// Descriptors to ask for: thousands of idle connections, twice.
const DESCRIPTORS_WANTED: u64 = 65_536;

/// A running child, killed when dropped.
pub(crate) struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts `program` pinned to `core`, its output in `log`.
    ///
    /// # Errors
    /// When the program (or `taskset`) cannot be started.
    pub(crate) fn start<I, S>(
        name: &str,
        core: usize,
        program: &Path,
        arguments: I,
        environment: &[(String, String)],
        log: PathBuf,
    ) -> Result<Self>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let output = fs::File::create(&log).context("cannot create a log file")?;
        let child = pinned(core, program)
            .args(arguments)
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("cannot share a log file")?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", program.display()))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Fails, with the end of the child's log, if the child has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait().context("cannot wait for a child")? {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            bail!("{} ended ({status}):\n{}", self.name, tail.join("\n"));
        }
        Ok(())
    }

    /// The child's process id. On machines with several cores `taskset` has become the child by then.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// CPU time of the tree so far, user and system, in microseconds.
    ///
    /// # Errors
    /// When the child has ended.
    pub(crate) fn cpu_microseconds(&mut self) -> Result<u64> {
        self.check_alive()?;
        let tree = tree_of(self.child.id());
        Ok(tree.iter().map(|pid| cpu_of(*pid).unwrap_or(0)).sum())
    }

    /// Tells the child to end, and waits until it has.
    ///
    /// # Errors
    /// When it does not within [`END_TIMEOUT`].
    pub(crate) fn end(&mut self) -> Result<()> {
        signal("TERM", &[self.child.id()])?;
        let deadline = Instant::now() + END_TIMEOUT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("{} did not end within {END_TIMEOUT:?}", self.name);
            }
            std::thread::sleep(END_POLL);
        }
        Ok(())
    }

    /// Stops the tree for as long as what is given is kept: it takes no time from others.
    ///
    /// # Errors
    /// When the child has ended.
    pub(crate) fn stopped(&mut self) -> Result<Stopped> {
        self.check_alive()?;
        let stopped = Stopped(tree_of(self.child.id()));
        signal("STOP", &stopped.0)?;
        Ok(stopped)
    }

    /// Resident memory of the tree, in KiB.
    ///
    /// # Errors
    /// When the child has ended.
    pub(crate) fn resident_kib(&mut self) -> Result<u64> {
        self.check_alive()?;
        let tree = tree_of(self.child.id());
        Ok(tree.iter().map(|pid| resident_of(*pid).unwrap_or(0)).sum())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Workers first: killing only nginx's master would leave its worker behind.
        let mut tree = tree_of(self.child.id());
        tree.reverse();
        let _ = signal("KILL", &tree);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processes that do nothing until this is dropped.
pub(crate) struct Stopped(Vec<u32>);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = signal("CONT", &self.0);
    }
}

/// Sends a signal (`STOP`, `CONT`, `TERM`, `KILL`) to processes, in order.
///
/// # Errors
/// When there is no such process, or none of ours.
pub(crate) fn signal(name: &str, pids: &[u32]) -> Result<()> {
    let status = Command::new("kill")
        .arg(format!("-{name}"))
        .args(pids.iter().map(u32::to_string))
        .stderr(Stdio::null())
        .status()
        .context("cannot run kill")?;
    ensure!(status.success(), "kill -{name} failed");
    Ok(())
}

/// A command that runs on one core, or anywhere on a machine that has only one.
pub(crate) fn pinned(core: usize, program: &Path) -> Command {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(program);
    command
}

/// Raises the soft limit of open files of this process and its later children; gives what it is now.
///
/// # Errors
/// When `prlimit` (package util-linux) is missing or refuses.
pub(crate) fn raise_descriptor_limit() -> Result<u64> {
    let limits = fs::read_to_string("/proc/self/limits").context("cannot read the limits")?;
    let hard = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .and_then(|line| line.split_whitespace().nth(4))
        .and_then(|word| word.parse::<u64>().ok())
        .unwrap_or(DESCRIPTORS_WANTED);
    // Root may lift the hard limit; everybody else takes what there is.
    if set_descriptor_limit(DESCRIPTORS_WANTED, hard.max(DESCRIPTORS_WANTED))? {
        return Ok(DESCRIPTORS_WANTED);
    }
    let wanted = hard.min(DESCRIPTORS_WANTED);
    if !set_descriptor_limit(wanted, hard)? {
        bail!("prlimit refused {wanted} open files");
    }
    Ok(wanted)
}

/// Whether the system agreed.
fn set_descriptor_limit(soft: u64, hard: u64) -> Result<bool> {
    let output = Command::new("prlimit")
        .arg(format!("--pid={}", std::process::id()))
        .arg(format!("--nofile={soft}:{hard}"))
        .output()
        .context("cannot run prlimit")?;
    Ok(output.status.success())
}

/// Finds a program in PATH and the places where system programs live.
///
/// # Errors
/// Names the Debian package to install.
pub(crate) fn find_program(name: &str, package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/bin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("{name} is not installed (Debian package {package})"))
}

/// `root` and its descendants, parents before children.
fn tree_of(root: u32) -> Vec<u32> {
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(&pid) = tree.get(next) {
        next += 1;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        for child in children.unwrap_or_default().split_whitespace() {
            if let Ok(child) = child.parse()
                && tree.len() < TREE_MAX
            {
                tree.push(child);
            }
        }
    }
    tree
}

/// User and system time of a process with those of its ended children, in microseconds.
fn cpu_of(pid: u32) -> Option<u64> {
    /// `USER_HZ`: 100 on every Linux architecture that Debian supports.
    const MICROSECONDS_PER_TICK: u64 = 10_000;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and parentheses; fields are counted from the last one.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(4)
        .map(|field| field.parse::<u64>().unwrap_or(0))
        .sum();
    Some(ticks * MICROSECONDS_PER_TICK)
}

fn resident_of(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_figures_are_readable() {
        let own = std::process::id();
        assert!(tree_of(own).contains(&own));
        assert!(cpu_of(own).is_some());
        assert!(resident_of(own).is_some_and(|kib| kib > 100));
    }
}
