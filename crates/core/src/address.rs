//! Addresses as they may be shown. People paste them with logins in them; pages, answers and logs keep no secret.

/// What stands where something was left out.
const LEFT_OUT: char = '…';

/// An address without what logins and tokens are written in: everything before its last `@`, and what follows a `?` or
/// `#`. A password may hold any of the signs by which an address is taken apart, so it is rather cut too much than too
/// little.
pub fn without_secrets(address: &str) -> String {
    let (scheme, rest) = match address.find("://") {
        Some(at) => address.split_at(at + "://".len()),
        None => ("", address),
    };
    let (login, place) = match rest.rsplit_once('@') {
        Some((_, place)) => (format!("{LEFT_OUT}@"), place),
        None => (String::new(), rest),
    };
    let place = match place.find(['?', '#']) {
        Some(at) => format!("{}{LEFT_OUT}", &place[..=at]),
        None => place.to_owned(),
    };
    format!("{scheme}{login}{place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_of_an_address_is_shown() {
        let cases = [
            ("https://example.org/a/b.git", "https://example.org/a/b.git"),
            ("https://u:pw@example.org/x", "https://…@example.org/x"),
            ("https://u:p@w/#?@example.org/x", "https://…@example.org/x"),
            ("https://tp_token@[::1]:7700", "https://…@[::1]:7700"),
            ("u:pw@example.org", "…@example.org"),
            ("https://example.org/x?token=pw", "https://example.org/x?…"),
            ("https://example.org/x#pw://", "https://example.org/x#…"),
            ("https://u:pw@h://x@", "https://…@"),
            ("", ""),
        ];
        cases.iter().for_each(|(address, shown)| assert_eq!(without_secrets(address), *shown));
    }
}
