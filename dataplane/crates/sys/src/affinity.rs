//! Which CPUs a thread may run on.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPUs that the calling thread may run on, ascending: those of the machine less what
/// a cpuset or `taskset` took away. Never empty.
///
/// # Errors
/// As sched_getaffinity(2); EINVAL when the machine has more CPUs than a `cpu_set_t` can name (1,024).
pub fn available() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// Keeps the calling thread on one CPU from now on. Threads that it starts inherit this.
///
/// # Errors
/// EINVAL when there is no such CPU or the thread may not run on it.
pub fn pin_current_thread(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_stays_on_its_cpu_and_the_others_are_free() {
        let before = available().expect("affinity can be read");
        let cpu = *before.last().expect("a thread runs somewhere");
        std::thread::spawn(move || {
            pin_current_thread(cpu).expect("the CPU is available");
            assert_eq!(available().expect("affinity can be read"), [cpu]);
            assert_eq!(rustix::thread::sched_getcpu(), cpu);
        })
        .join()
        .expect("the thread's own asserts");
        assert_eq!(available().expect("affinity can be read"), before);
    }

    #[test]
    fn refuses_a_cpu_that_is_not_there() {
        for cpu in [1023, 1024, usize::MAX] {
            let error = pin_current_thread(cpu).expect_err("no such CPU");
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "CPU {cpu}");
        }
    }
}
