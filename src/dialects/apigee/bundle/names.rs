//! Which names the parts of bundles may have.

/// Longest name of a part, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// A name for a proxy or shared flow: letters, digits, `_` and `-`; a dot is tolerated where it is not the first.
pub fn is_proxy_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

/// A name for an endpoint, policy, flow or route: letters, digits, blanks and `. _ - $ %`.
pub fn is_part_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'$' | b' ' | b'%')
        })
}
