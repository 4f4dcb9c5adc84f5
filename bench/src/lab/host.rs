//! The machine: what it is, and what of it a thread has used.

use super::command::{self, CommandError};
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

/// CPU model and kernel release.
pub fn describe() -> (String, String) {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = field("model name").unwrap_or_else(|| std::env::consts::ARCH.into());
    let family = match (field("cpu family"), field("model\t")) {
        (Some(family), Some(number)) => format!(" (family {family}, model {number})"),
        _ => String::new(),
    };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    (model + &family, kernel.trim().into())
}

/// Runnable threads, on average over the last minute.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

/// Whether the kernel counts the time of soft interrupts apart from the thread that they interrupt: then
/// [`Thread::cpu_ns`] would miss most of what is measured here.
pub fn counts_soft_interrupts_apart() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(read_accounting)
}

fn read_accounting() -> bool {
    const APART: &str = "CONFIG_IRQ_TIME_ACCOUNTING=y";
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let boot = fs::read_to_string(format!("/boot/config-{}", release.trim()));
    let config = boot.or_else(|_| command::run("zcat /proc/config.gz"));
    config.is_ok_and(|config| config.lines().any(|line| line == APART))
}

/// Nanoseconds of soft interrupts on a CPU since the machine started, in steps of 10 ms.
pub fn soft_interrupt_ns(cpu: usize) -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let label = format!("cpu{cpu}");
    let line = stat.lines().find(|line| line.split(' ').next() == Some(&label));
    // user, nice, system, idle, iowait, irq, softirq, in hundredths of a second.
    let ticks = line.and_then(|line| line.split_whitespace().nth(7)?.parse::<u64>().ok());
    ticks.unwrap_or(0) * 10_000_000
}

/// A thread that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread {
    /// The process it belongs to.
    pub process: u32,
    /// Its own number.
    pub number: u32,
}

impl Thread {
    /// The calling thread.
    pub fn current() -> Self {
        let number = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        Self { process: std::process::id(), number }
    }

    /// The thread of a process that has this name.
    pub fn named(process: u32, name: &str) -> Option<Self> {
        let entries = fs::read_dir(format!("/proc/{process}/task")).ok()?;
        let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        numbers.map(|number| Self { process, number }).find(|thread| thread.name().is_some_and(|n| n == name))
    }

    /// The kernel's own thread whose name starts like this.
    pub fn of_kernel(prefix: &str) -> Option<Self> {
        let entries = fs::read_dir("/proc").ok()?;
        let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let mut threads = numbers.map(|number| Self { process: number, number });
        threads.find(|thread| thread.name().is_some_and(|name| name.starts_with(prefix)))
    }

    fn directory(self) -> PathBuf {
        format!("/proc/{}/task/{}", self.process, self.number).into()
    }

    fn name(self) -> Option<String> {
        Some(fs::read_to_string(self.directory().join("comm")).ok()?.trim_end().into())
    }

    /// Nanoseconds of CPU that it has had, 0 once it is gone. Soft interrupts that ran in its place count, unless
    /// the kernel [counts them apart](counts_soft_interrupts_apart).
    pub fn cpu_ns(self) -> u64 {
        let text = fs::read_to_string(self.directory().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0)
    }

    /// Keeps it on one CPU.
    ///
    /// # Errors
    ///
    /// There is no such CPU, or the thread is gone.
    pub fn pin(self, cpu: usize) -> Result<(), CommandError> {
        command::run(&format!("taskset -pc {cpu} {}", self.number)).map(drop)
    }

    /// Gives it far more of its CPU than ordinary threads get, so that whatever else the machine does disturbs
    /// little. No real-time priority: from that the kernel takes a twentieth of the time back, in turns that hit two
    /// busy threads harder than one. `false` where it is not allowed.
    pub fn prefer(self) -> bool {
        // Without groups per session this file is missing, and nothing stands between the threads.
        let _no_group = fs::write(format!("/proc/{}/autogroup", self.process), "-20");
        command::run(&format!("renice -n -20 -p {}", self.number)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threads_time_passes_while_it_works() {
        let worker = std::thread::Builder::new().name("hard-worker".into()).spawn(|| {
            let thread = Thread::named(std::process::id(), "hard-worker").expect("it runs");
            assert_eq!(thread, Thread::current());
            let before = thread.cpu_ns();
            let mut spins = 0u64;
            while thread.cpu_ns() == before {
                spins += 1;
            }
            assert!(spins > 0);
        });
        worker.expect("threads can be made").join().expect("the thread's own asserts");
        assert_eq!(Thread { process: 0, number: 0 }.cpu_ns(), 0);
    }

    #[test]
    fn knows_the_machine() {
        let (model, kernel) = describe();
        assert!(!model.is_empty());
        assert!(kernel.starts_with(|digit: char| digit.is_ascii_digit()), "{kernel}");
        assert!(Thread::of_kernel("kthreadd").is_some_and(|thread| thread.number == 2));
    }
}
