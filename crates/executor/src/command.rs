//! From `run:` to a command line.

/// A script up to this many bytes is an argument of the shell; a longer one is a file. Far below the kernel's limit
/// of 128 KiB for one argument (execve(2)).
pub const SCRIPT_ARGUMENT_BYTES_MAX: usize = 16 * 1024;

/// What is executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobCommand {
    /// A program without a shell.
    Direct(Vec<String>),
    /// `/bin/sh -e -c` with this script.
    Script(String),
    /// `/bin/sh -e` with a file that holds this script.
    ScriptFile(String),
}

/// Words that only a shell understands. Source: `sh_cmds_sh` of GNU make 4.3.
const SHELL_WORDS: &[&str] = &[
    ".", ":", "alias", "bg", "break", "case", "cd", "command", "continue", "do", "done", "elif", "else",
    "esac", "eval", "exec", "exit", "export", "fc", "fg", "fi", "for", "getopts", "hash", "if", "jobs",
    "local", "login", "logout", "read", "readonly", "return", "set", "shift", "test", "then", "times",
    "trap", "type", "ulimit", "umask", "unalias", "unset", "until", "wait", "while", "[", "!", "{", "}",
];

/// Characters that mean something to a shell.
const SHELL_CHARACTERS: &[char] = &[
    '#', ';', '"', '\'', '\\', '*', '?', '[', ']', '&', '|', '<', '>', '(', ')', '{', '}', '$', '`', '^',
    '~', '!', '%', '\n', '\r',
];

impl JobCommand {
    /// Saves the shell where it would do nothing but start one program, as GNU make does.
    pub fn of(run: &str) -> JobCommand {
        if let Some(words) = plain_words(run) {
            return JobCommand::Direct(words);
        }
        match run.len() <= SCRIPT_ARGUMENT_BYTES_MAX && !run.contains('\0') {
            true => JobCommand::Script(run.to_owned()),
            false => JobCommand::ScriptFile(run.to_owned()),
        }
    }

    /// The command line, with `script_path` for a script in a file.
    pub fn line(&self, script_path: &str) -> Vec<String> {
        let shell =
            |rest: &[&str]| ["/bin/sh", "-e"].iter().chain(rest).map(|word| (*word).to_owned()).collect();
        match self {
            JobCommand::Direct(words) => words.clone(),
            JobCommand::Script(script) => shell(&["-c", script]),
            JobCommand::ScriptFile(_) => shell(&[script_path]),
        }
    }

    /// The same through the shell, which answers 126 or 127 for a program that cannot be started.
    pub fn through_shell(self) -> JobCommand {
        match self {
            JobCommand::Direct(words) => JobCommand::Script(words.join(" ")),
            other => other,
        }
    }
}

fn plain_words(run: &str) -> Option<Vec<String>> {
    let run = run.trim_matches(['\n', ' ']);
    if run.contains(SHELL_CHARACTERS) || run.contains(|c: char| c.is_control()) {
        return None;
    }
    let words: Vec<String> = run.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let first = words.first()?;
    (!first.contains('=') && !SHELL_WORDS.contains(&first.as_str())).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_program_goes_without_a_shell() {
        for run in ["true", "cargo test --all  -- --nocapture\n", "./x.sh a=b", "/bin/echo hi"] {
            assert!(matches!(JobCommand::of(run), JobCommand::Direct(_)), "{run}");
        }
        for run in
            ["", "a; b", "cd x", "X=1 y", "a\nb", "echo $HOME", "[ -f x ]", "a|b", "echo 'x'", "exit 3"]
        {
            assert!(matches!(JobCommand::of(run), JobCommand::Script(_)), "{run}");
        }
        assert!(matches!(JobCommand::of(&"a\n".repeat(10_000)), JobCommand::ScriptFile(_)));
    }
}
