//! Properties of endpoints: codings of bodies, times that targets have, connections that are kept.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::GzEncoder;

use crate::apigee_flows::{Bundles, TO_DEFAULT, endpoint};
use crate::harness::{Origin, Reply, eventually, for_both_drivers};

/// A proxy under `/p` whose endpoints have these properties.
fn proxy(of_proxy: &str, of_target: &str, url: &str) -> Bundles {
    let endpoint = endpoint("/p", TO_DEFAULT).replace(
        "</HTTPProxyConnection>",
        &format!("<Properties>{of_proxy}</Properties></HTTPProxyConnection>"),
    );
    let target = format!(
        "<TargetEndpoint name='default'><HTTPTargetConnection><Properties>{of_target}</Properties>\
         <URL>{url}</URL></HTTPTargetConnection></TargetEndpoint>"
    );
    Bundles::new().proxy(
        "p",
        &[
            ("proxies/default.xml", &endpoint),
            ("targets/default.xml", &target),
        ],
    )
}

fn property(name: &str, value: &str) -> String {
    format!("<Property name='{name}'>{value}</Property>")
}

fn gzipped(text: &str) -> Vec<u8> {
    let mut writer = GzEncoder::new(Vec::new(), Compression::fast());
    writer.write_all(text.as_bytes()).expect("memory");
    writer.finish().expect("memory")
}

#[test]
fn bodies_get_the_coding_that_is_asked_for() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|_| {
            Reply::new(
                200,
                &[("Content-Type", "text/plain"), ("Content-Encoding", "gzip")],
                gzipped("the answer"),
            )
        });
        let bundles = proxy(
            &property("compression.algorithm", "deflate"),
            &property("compression.algorithm", "gzip"),
            &origin.url(),
        );
        let gateway = bundles.gateway(Some(driver));
        let answer = gateway.request("POST", "/p").body("the request").send();
        let answer = answer.expect_status(200);
        assert_eq!(answer.all("Content-Encoding"), ["deflate"]);
        let mut text = String::new();
        let mut plain = ZlibDecoder::new(&*answer.body);
        plain.read_to_string(&mut text).expect("a packed body");
        assert_eq!(text, "the answer");
        let received = origin.received();
        assert_eq!(received[0].header("Content-Encoding"), Some("gzip"));
        let mut text = String::new();
        let mut plain = GzDecoder::new(&*received[0].body);
        plain.read_to_string(&mut text).expect("a packed body");
        assert_eq!(text, "the request");
    });
}

#[test]
fn packed_bodies_are_opened_and_broken_ones_are_refused() {
    let origin = Origin::echo();
    let none = property("compression.algorithm", "none");
    let gateway = proxy("", &none, &origin.url()).gateway(None);
    let send = |body: Vec<u8>| {
        let request = gateway
            .request("POST", "/p")
            .header("Content-Encoding", "gzip");
        request.body(body).send()
    };
    let opened = send(gzipped("the request")).expect_status(200);
    assert_eq!(opened.json()["body"], "the request");
    assert!(opened.echoed("Content-Encoding").is_empty());
    let refused = send(b"not packed at all".to_vec()).expect_status(400);
    assert_eq!(
        refused.json()["fault"]["detail"]["errorcode"],
        "messaging.adaptors.http.flow.DecompressionFailureAtRequest"
    );
}

#[test]
fn a_target_has_no_more_time_than_the_whole_exchange() {
    for_both_drivers(|driver| {
        // Without the limit it would take longer than the client waits.
        let origin = Origin::conversing(|stream, _| {
            let mut stream = stream;
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let limit = property("api.timeout", "300");
        let gateway = proxy(&limit, "", &origin.url()).gateway(Some(driver));
        gateway.get("/p").send().expect_status(504);
    });
}

#[test]
fn idle_connections_are_kept_as_long_as_the_target_says() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let limit = property("keepalive.timeout.millis", "1");
        let gateway = proxy("", &limit, &origin.url()).gateway(Some(driver));
        eventually("a connection of its own for a later request", || {
            let answer = gateway.get("/p").send().expect_status(200);
            (answer.json()["connection"] != 0).then_some(())
        });
    });
}
