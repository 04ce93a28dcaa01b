//! Who asks, and what they may do: tokens, passwords, sessions, rights (trust S7, S8).
//!
//! Architecture invariant: cookies never speak for Git or the API, tokens never for pages. Nothing here decides about
//! changes or branches; the gate asks again when it acts (I18).

pub mod accounts;
pub mod limiter;
pub mod password;
pub mod revoked;
pub mod rights;
pub mod session;
pub mod token;
pub mod uses;

/// Whether two secrets are equal, in a time that does not tell where they differ.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    let differs = one.iter().zip(other).fold(0, |seen, (a, b)| std::hint::black_box(seen | (a ^ b)));
    one.len() == other.len() && differs == 0
}

/// Bytes in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("invariant: a string takes any text");
        text
    })
}
