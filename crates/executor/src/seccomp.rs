//! The system calls that a job may not make (trust S1), as programs for the kernel's filter.
//!
//! Namespaces and lost capabilities already refuse most of these. The filter refuses what knows no namespace
//! (AF_VSOCK, keyrings, the terminal's input queue) and what has often had holes (bpf, io_uring, userfaultfd, perf).

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the system call filter: {0}")]
pub struct FilterError(#[from] seccompiler::BackendError);

/// Refused whatever their arguments are.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// Refused unless the target's definition grants nested user namespaces.
const REFUSED_WITHOUT_NAMESPACES: &[libc::c_long] = &[
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_umount2,
];

/// "No such system call": programs then take an older or a slower way. Without `io_setup` nothing else of asynchronous requests
/// (libaio) can be used; the machine has so many of them for all its processes (`fs.aio-max-nr`), and one job can take them.
const ABSENT: &[libc::c_long] = &[libc::SYS_io_setup];

/// The same, unless the target's definition grants nested user namespaces: `clone3` has its flags in memory, where the rules
/// cannot look.
const ABSENT_WITHOUT_NAMESPACES: &[libc::c_long] = &[libc::SYS_clone3];

/// System call numbers of the x32 way in begin here; they would pass by every rule. Source: `asm/unistd.h`.
const X32_BIT: u32 = 0x4000_0000;

/// The filter's bytes as the kernel and bubblewrap's `--seccomp` take them.
///
/// # Errors
/// [`FilterError`] on a processor for which there is no filter.
pub fn program(user_namespaces: bool) -> Result<Vec<u8>, FilterError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(
        rules(user_namespaces)?,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.cast_unsigned()),
        arch,
    )?;
    let mut program = prologue(user_namespaces);
    program.extend(BpfProgram::try_from(filter)?);
    let bytes = |step: sock_filter| {
        let [code_low, code_high] = step.code.to_ne_bytes();
        let [k0, k1, k2, k3] = step.k.to_ne_bytes();
        [code_low, code_high, step.jt, step.jf, k0, k1, k2, k3]
    };
    Ok(program.into_iter().flat_map(bytes).collect())
}

/// Answers "no such system call". The rules run after it.
fn prologue(user_namespaces: bool) -> BpfProgram {
    let load_number = sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 };
    let refuse = sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x0005_0000 | libc::ENOSYS.cast_unsigned() };
    let skip_unless = |code, k| sock_filter { code, jt: 0, jf: 1, k };
    let mut program = vec![load_number];
    if cfg!(target_arch = "x86_64") {
        program.extend([skip_unless(0x35, X32_BIT), refuse.clone()]); // jge
    }
    let with_namespaces = if user_namespaces { &[][..] } else { ABSENT_WITHOUT_NAMESPACES };
    for number in ABSENT.iter().chain(with_namespaces) {
        let number = u32::try_from(*number).expect("system call numbers are small");
        program.extend([skip_unless(0x15, number), refuse.clone()]); // jeq
    }
    program
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules(user_namespaces: bool) -> Result<Rules, FilterError> {
    let mut rules: Rules = REFUSED.iter().map(|number| (*number, Vec::new())).collect();
    rules.insert(libc::SYS_socket, socket_rules()?);
    // The kernel looks at the lower half of the request only, so the rule does too.
    let terminal = [libc::TIOCSTI, libc::TIOCLINUX];
    let terminal = terminal.map(|request| one(1, SeccompCmpOp::Eq, request & 0xffff_ffff));
    rules.insert(libc::SYS_ioctl, terminal.into_iter().collect::<Result<_, _>>()?);
    if !user_namespaces {
        rules.extend(REFUSED_WITHOUT_NAMESPACES.iter().map(|number| (*number, Vec::new())));
        let flag = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
        for number in [libc::SYS_clone, libc::SYS_unshare] {
            rules.insert(number, vec![one(0, SeccompCmpOp::MaskedEq(flag), flag)?]);
        }
    }
    Ok(rules)
}

/// Only unix, IPv4, IPv6 and netlink (name lookups use it) sockets: families 1, 2, 10 and 16.
fn socket_rules() -> Result<Vec<SeccompRule>, FilterError> {
    let between = |above: i32, below: i32| {
        let conditions = [(SeccompCmpOp::Gt, above), (SeccompCmpOp::Lt, below)];
        let conditions = conditions.map(|(op, family)| condition(0, op, u64::from(family.cast_unsigned())));
        Ok::<_, FilterError>(SeccompRule::new(conditions.into_iter().collect::<Result<_, _>>()?)?)
    };
    Ok(vec![
        between(libc::AF_INET, libc::AF_INET6)?,
        between(libc::AF_INET6, libc::AF_NETLINK)?,
        one(0, SeccompCmpOp::Gt, u64::from(libc::AF_NETLINK.cast_unsigned()))?,
    ])
}

fn one(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompRule, FilterError> {
    Ok(SeccompRule::new(vec![condition(argument, op, value)?])?)
}

fn condition(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, FilterError> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_whole_and_differ() {
        let (with, without) = (program(true).unwrap(), program(false).unwrap());
        assert!(with.len() % 8 == 0 && without.len() % 8 == 0);
        assert!(without.len() > with.len());
        // The kernel's limit for one program. Source: BPF_MAXINSNS.
        assert!(without.len() / 8 < 4096);
    }
}
