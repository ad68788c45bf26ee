//! MessageLogging and StatisticsCollector: where lines go, and what is counted.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};

use crate::apigee_flows::{Bundles, endpoint, step};
use crate::harness::{Authority, DEADLINE, acceptor, eventually};

/// A proxy that answers by itself, with these steps after its answer was sent.
fn logging(name: &str, steps: &str, policies: &[(&str, &str)]) -> Bundles {
    let flows = format!(
        "<PostClientFlow><Response>{steps}</Response></PostClientFlow><RouteRule name='nowhere'/>"
    );
    let base = format!("/{name}");
    let endpoint = endpoint(&base, &flows);
    let mut files = vec![("proxies/default.xml", endpoint.as_str())];
    files.extend(policies);
    Bundles::new().proxy(name, &files)
}

fn syslog(name: &str, inside: &str) -> String {
    format!(
        "<MessageLogging name='{name}'><Syslog><Message>{name} {{request.header.x}} {{response.status.code}} {{client.sent.end.timestamp}}</Message>\
         <Host>127.0.0.1</Host>{inside}</Syslog><logLevel>WARN</logLevel></MessageLogging>"
    )
}

#[test]
fn lines_go_to_syslog_servers_and_files_after_the_answer() {
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    udp.set_read_timeout(Some(DEADLINE)).expect("a limit");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let ports = (
        udp.local_addr().expect("an address").port(),
        tcp.local_addr().expect("an address").port(),
    );
    let file = "<MessageLogging name='file'><File><Message>{request.header.x}</Message>\
        <FileName>requests.log</FileName></File></MessageLogging>";
    let bundles = logging(
        "logs",
        &(step("udp") + &step("tcp") + &step("file")),
        &[
            (
                "policies/udp.xml",
                &syslog("udp", &format!("<Port>{}</Port>", ports.0)),
            ),
            (
                "policies/tcp.xml",
                &syslog(
                    "tcp",
                    &format!(
                        "<Port>{}</Port><Protocol>TCP</Protocol><FormatMessage>true</FormatMessage>",
                        ports.1
                    ),
                ),
            ),
            ("policies/file.xml", file),
        ],
    );
    let gateway = bundles.gateway(None);
    gateway
        .get("/logs")
        .header("x", "one")
        .send()
        .expect_status(200);
    let mut bytes = [0; 1_024];
    let length = udp.recv(&mut bytes).expect("a datagram");
    let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
    let time = text.strip_prefix("<12>udp one 200 ").expect(&text);
    assert!(time.parse::<u64>().is_ok(), "{text}");
    let (stream, _) = tcp.accept().expect("a connection");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("a line");
    assert!(
        line.starts_with("<12>1 ") && line.contains(" sallyport - - - tcp one 200 "),
        "{line}"
    );
    let path = gateway
        .prefix()
        .join("logs/messagelogging/sallyport/test/logs/1/file/requests.log");
    eventually("the line is in the file", || {
        let text = fs::read_to_string(&path).ok()?;
        (text == "one\n").then_some(())
    });
}

#[test]
fn lines_go_over_tls_to_servers_that_are_verified() {
    let pair = Authority::new().issue(&["127.0.0.1"]);
    let acceptor = acceptor(&pair, None);
    let server = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = server.local_addr().expect("an address").port();
    let tls = |name: &str, info: &str| {
        let inside = format!(
            "<Port>{port}</Port><Protocol>TCP</Protocol><SSLInfo><Enabled>true</Enabled>{info}</SSLInfo>"
        );
        syslog(name, &inside)
    };
    let lenient = tls(
        "lenient",
        "<IgnoreValidationErrors>true</IgnoreValidationErrors>",
    );
    let bundles = logging(
        "sealed",
        "<Step><Name>strict</Name><Condition>request.header.x = \"strict\"</Condition></Step>\
         <Step><Name>lenient</Name><Condition>request.header.x = \"lenient\"</Condition></Step>",
        &[
            ("policies/lenient.xml", &lenient),
            ("policies/strict.xml", &tls("strict", "")),
        ],
    );
    let gateway = bundles.gateway(None);
    let send = |value: &str| {
        let request = gateway.get("/sealed").header("x", value);
        request.send().expect_status(200);
    };
    send("lenient");
    let (stream, _) = server.accept().expect("a connection");
    let stream = acceptor.accept(stream).expect("a handshake");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("a line");
    assert!(line.starts_with("<12>lenient lenient 200 "), "{line}");
    send("strict");
    let (stream, _) = server.accept().expect("a connection");
    assert!(
        acceptor.accept(stream).is_err(),
        "nobody vouches for the server"
    );
    eventually("the line is counted as lost", || {
        let metrics = gateway.metrics();
        let lost = "sallyport_log_lines_lost_total{way=\"tcp\"} 1";
        metrics.lines().any(|line| line == lost).then_some(())
    });
}

#[test]
fn nobody_waits_for_a_syslog_server_that_is_away() {
    let away = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = away.local_addr().expect("an address").port();
    drop(away);
    let away = format!("<Port>{port}</Port><Protocol>TCP</Protocol>");
    let bundles = logging(
        "away",
        &step("tcp"),
        &[("policies/tcp.xml", &syslog("tcp", &away))],
    );
    let gateway = bundles.gateway(None);
    for _ in 0..20 {
        gateway.get("/away").send().expect_status(200);
    }
    eventually("lost lines are counted", || {
        let metrics = gateway.metrics();
        let line = metrics
            .lines()
            .find(|line| line.starts_with("sallyport_log_lines_lost_total{way=\"tcp\"}"))?;
        let count = line.rsplit(' ').next()?.parse::<u64>().ok()?;
        (count == 20).then_some(())
    });
}

#[test]
fn statistics_are_metrics() {
    let statistics = "<StatisticsCollector name='sales'><Statistics>\
        <Statistic name='product' ref='request.queryparam.product' type='string'>none</Statistic>\
        <Statistic name='price' ref='request.queryparam.price' type='integer'>0</Statistic>\
        </Statistics></StatisticsCollector>";
    let bundles = logging(
        "shop",
        &step("sales"),
        &[("policies/sales.xml", statistics)],
    );
    let gateway = bundles.gateway(None);
    for query in ["product=pen&price=3", "product=pen&price=4", ""] {
        gateway
            .get(&format!("/shop?{query}"))
            .send()
            .expect_status(200);
    }
    let labels = "organization=\"sallyport\",environment=\"test\",proxy=\"shop\",policy=\"sales\"";
    eventually("the statistics are on the page", || {
        let metrics = gateway.metrics();
        let has = |line: String| metrics.lines().any(|other| other == line);
        let there = has(format!(
            "sallyport_statistic_values_total{{{labels},statistic=\"product\",value=\"pen\"}} 2"
        )) && has(format!(
            "sallyport_statistic_values_total{{{labels},statistic=\"product\",value=\"none\"}} 1"
        )) && has(format!(
            "sallyport_statistic_sum{{{labels},statistic=\"price\"}} 7"
        )) && has(format!(
            "sallyport_statistic_count{{{labels},statistic=\"price\"}} 3"
        ));
        there.then_some(())
    });
}
