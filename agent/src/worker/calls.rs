//! The calls to the system that a model's process may make, as a filter for seccomp.
//!
//! Decides the list. There is a filter for 64-bit processors only: for others the library that writes it has none.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};
use std::collections::BTreeMap;

/// Allows these calls to all threads of the process, and no other. Gives whether they are shut in.
pub(super) fn lock() -> bool {
    filter().is_some_and(|filter| apply_filter_all_threads(&filter).is_ok())
}

/// Calls that any process makes that reads, computes and answers; by number, since names differ between machines.
const CALLS: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_ppoll,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_getdents64,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    // Threads that have just begun.
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

#[cfg(target_arch = "x86_64")]
const OLDER_CALLS: &[libc::c_long] = &[libc::SYS_stat, libc::SYS_lstat, libc::SYS_poll];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_CALLS: &[libc::c_long] = &[];

/// Calls that are allowed with some arguments only.
fn with_arguments() -> Option<Vec<(libc::c_long, Vec<SeccompRule>)>> {
    let bits = |flags: libc::c_int| u64::from(flags.cast_unsigned());
    let condition =
        |argument, operator, value| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value).ok();
    let without = |argument, flags| condition(argument, SeccompCmpOp::MaskedEq(flags), 0);
    let is = |argument, value| condition(argument, SeccompCmpOp::Eq, value);
    let rule = |conditions: Vec<Option<SeccompCondition>>| {
        SeccompRule::new(conditions.into_iter().collect::<Option<Vec<_>>>()?).ok()
    };
    // A file is read: not written, made or emptied, and not even where there is no Landlock.
    let changing = bits(libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE & !libc::O_DIRECTORY);
    let own = u64::from(std::process::id());
    let executable = bits(libc::PROT_EXEC);
    // Memory that is shared, or grows by itself, is not counted by the limit.
    let uncounted = bits(libc::MAP_SHARED | libc::MAP_GROWSDOWN);
    let fcntl = [libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_DUPFD_CLOEXEC].map(bits);
    let mut fcntl: Vec<SeccompRule> =
        fcntl.into_iter().map(|command| rule(vec![is(1, command)])).collect::<Option<_>>()?;
    // No signal is asked for that somebody else would get.
    fcntl.push(rule(vec![is(1, bits(libc::F_SETFL)), without(2, bits(libc::O_ASYNC))])?);
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "one machine has calls that others lack"))]
    let mut rules = vec![
        (libc::SYS_openat, vec![rule(vec![without(2, changing)])?]),
        (libc::SYS_fcntl, fcntl),
        // It may end itself.
        (libc::SYS_tgkill, vec![rule(vec![is(0, own)])?]),
        // Memory is written or run, and what is mapped here is never run: code comes with the program alone.
        (libc::SYS_mmap, vec![rule(vec![without(2, executable), without(3, uncounted)])?]),
        (libc::SYS_mprotect, vec![rule(vec![without(2, executable)])?]),
    ];
    #[cfg(target_arch = "x86_64")]
    rules.push((libc::SYS_open, vec![rule(vec![without(1, changing)])?]));
    Some(rules)
}

/// The filter for this machine; `None` where there is none yet. What is not allowed fails, and ends nothing: a library
/// may ask for something and do without.
fn filter() -> Option<BpfProgram> {
    let machine: TargetArch = std::env::consts::ARCH.try_into().ok()?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        CALLS.iter().chain(OLDER_CALLS).map(|call| (*call, Vec::new())).collect();
    rules.extend(with_arguments()?);
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, denied, SeccompAction::Allow, machine).ok()?.try_into().ok()
}
