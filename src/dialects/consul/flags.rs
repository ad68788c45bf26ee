//! What is typed after `connect proxy`, in Consul's own notation.

use super::answers::Upstream;

/// An upstream as `-upstream` names it: `name[.service|.query]:[host:]port`.
pub fn parse_upstream(text: &str) -> Result<Upstream, String> {
    let wrong = || {
        format!("'{text}' is not an upstream, write NAME:PORT, NAME:HOST:PORT or NAME.query:PORT")
    };
    let (name, bind) = text.split_once(':').ok_or_else(wrong)?;
    let (name, kind) = match name.rsplit_once('.') {
        Some((name, "service")) => (name, "service"),
        Some((name, "query" | "prepared_query")) => (name, "prepared_query"),
        Some((_, kind)) => {
            return Err(format!(
                "'{text}': '{kind}' is not a type of upstream, use 'service' or 'query'"
            ));
        }
        None => (name, "service"),
    };
    let (host, port) = match bind.rsplit_once(':') {
        Some((host, port)) => (host, port),
        None => ("", bind),
    };
    let port: u16 = port.parse().map_err(|_| wrong())?;
    if name.is_empty() || port == 0 {
        return Err(wrong());
    }
    Ok(Upstream {
        destination_type: kind.to_owned(),
        destination_name: name.to_owned(),
        local_bind_address: host.trim_matches(['[', ']']).to_owned(),
        local_bind_port: u32::from(port),
        ..Upstream::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_consul_s_notation() {
        for (text, expected) in [
            ("db:8181", Ok(("db", "service", "", 8181))),
            ("db.service:8181", Ok(("db", "service", "", 8181))),
            (
                "nearest.query:127.0.0.9:1",
                Ok(("nearest", "prepared_query", "127.0.0.9", 1)),
            ),
            ("db:[::1]:1", Ok(("db", "service", "::1", 1))),
            ("db", Err(())),
            ("db:", Err(())),
            ("db:0", Err(())),
            (":1", Err(())),
            ("db.table:1", Err(())),
            ("db:70000", Err(())),
        ] {
            let parsed = parse_upstream(text);
            let shown = parsed.as_ref().map(|upstream| {
                (
                    upstream.destination_name.as_str(),
                    upstream.destination_type.as_str(),
                    upstream.local_bind_address.as_str(),
                    upstream.local_bind_port,
                )
            });
            assert_eq!(shown.map_err(|_| ()), expected, "{text}");
        }
    }
}
