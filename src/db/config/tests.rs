//! The URL, the environment and the ranges; no server is asked.

use secrecy::ExposeSecret;

use super::*;

mod pasted;

fn url(text: &str) -> DatabaseConfig {
    DatabaseConfig::from_url(text).unwrap()
}

#[test]
fn several_hosts_stand_as_libpq_has_them() {
    let hosts = |text: &str| {
        let config = url(text);
        config.server.hosts().map(|(host, port)| format!("{host} {port}")).collect::<Vec<_>>()
    };
    let pair = ["db1 5433", "db2 5432"];
    assert_eq!(hosts("postgres://u:p%2Cq@db1:5433,db2/d?target_session_attrs=read-write"), pair);
    assert_eq!(hosts("postgres://u:p,q@db1:5433,db2:5432/d"), pair);
    assert_eq!(hosts("postgres:///d?host=db1,db2&port=5433,5432"), pair);
    assert_eq!(hosts("postgres:///d?host=db1,db2&port=5433"), ["db1 5433", "db2 5433"]);
    assert_eq!(hosts("postgres://u@[::1],[::2]:5433/d"), ["::1 5432", "::2 5433"]);
    assert_eq!(url("postgres://127.0.0.1,localhost/d").server.ssl_mode(), SslMode::Prefer);
    assert_eq!(url("postgres://localhost,db2/d").server.ssl_mode(), SslMode::VerifyFull);
    for wrong in [
        "postgres://u:s3cret@a,b:port/d",
        "postgres://u:s3cret@a,u:s3cret@b/d?host=a,b&port=1,2,3",
        "postgres://u@a,/d",
        "postgres://u@a,b:0x/d",
        "postgres:///d?host=a,b&port=1,2,3",
        "postgres://a,b/d?target_session_attrs=s3cret",
        "postgres://a,b/d?target_session_attrs=standby",
    ] {
        let error = DatabaseConfig::from_url(wrong).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{wrong}: {error}");
    }
}

#[test]
fn each_of_the_three_urls_is_checked_and_named() {
    let from = |name: &'static str, value: &'static str| {
        DatabaseConfig::from_variables(move |variable| match variable {
            "DATABASE_URL" => Some("postgres://localhost/d".into()),
            variable if variable == name => Some(value.into()),
            _ => None,
        })
    };
    let config = from("DATABASE_READER_URL", "postgres://db2,db3:5433/d").unwrap();
    assert_eq!(config.reader.unwrap().others, [("db3".to_owned(), 5433)]);
    assert!(config.direct.is_none());
    for (variable, setting) in
        [("DATABASE_DIRECT_URL", "direct_url"), ("DATABASE_READER_URL", "reader_url")]
    {
        let error = from(variable, "postgres://u:s3cret@h:port/d").unwrap_err().to_string();
        assert!(error.contains(setting) && !error.contains("s3cret"), "{error}");
    }
    let error = from("DATABASE_READER_URL", "postgres://db2/d?target_session_attrs=read-write");
    assert!(error.unwrap_err().to_string().starts_with("reader_url"));
    assert!(from("DATABASE_POOLER", "session").unwrap_err().to_string().contains("transaction"));
}

#[test]
fn certificates_are_checked_unless_the_host_is_this_machine() {
    for local in ["localhost", "127.0.0.1", "[::1]", "%2Ftmp"] {
        assert_eq!(url(&format!("postgres://u@{local}/d")).server.ssl_mode(), SslMode::Prefer);
    }
    assert_eq!(url("postgres://u@db.example.org/d").server.ssl_mode(), SslMode::VerifyFull);
    assert_eq!(url("postgres://u@db/d?sslmode=disable").server.ssl_mode(), SslMode::Disable);
}

#[test]
fn a_wrong_url_is_refused_without_showing_it() {
    for wrong in [
        "",
        "s3cret",
        "mysql://u:s3cret@h/d",
        "postgres://u:s3cret@h:port/d",
        "postgres://u:s3cret@h:0/d",
        "postgres://u:s3cret@h:70000/d",
        "postgres://u:s3cret#x@h/d",
        "postgres://u:s3cret@h/d?sslmode=s3cret",
        "postgres://u:s3cret@h/d?connect_timeout=s3cret",
        "postgres://u:s3cret@h/d?unknown=s3cret",
        "postgres://u:s3cret@h/d%00",
    ] {
        let error = DatabaseConfig::from_url(wrong).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{wrong}: {error}");
    }
}

#[test]
fn the_environment_is_read_by_name_and_checked() {
    let from = |pairs: &'static [(&'static str, &'static str)]| {
        DatabaseConfig::from_variables(move |name| {
            pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
        })
    };
    assert_eq!(from(&[]).unwrap_err(), ConfigError::MissingVariable("DATABASE_URL"));
    assert_eq!(
        from(&[("DATABASE_URL", "")]).unwrap_err(),
        ConfigError::MissingVariable("DATABASE_URL")
    );
    let config = from(&[
        ("DATABASE_URL", "postgres://localhost/d"),
        ("DATABASE_POOL_SIZE", "20"),
        ("DATABASE_MAX_OVERFLOW", "0"),
        ("DATABASE_POOL_TIMEOUT", "0.5"),
        ("DATABASE_POOL_RECYCLE", "3600"),
        ("DATABASE_ECHO", "True"),
    ])
    .unwrap();
    assert_eq!((config.pool_size, config.max_overflow, config.echo), (20, 0, true));
    assert_eq!(config.pool_timeout, Duration::from_millis(500));
    for (name, value) in [
        ("DATABASE_POOL_SIZE", "many"),
        ("DATABASE_POOL_SIZE", "-1"),
        ("DATABASE_POOL_TIMEOUT", "-1"),
        ("DATABASE_POOL_TIMEOUT", "NaN"),
        ("DATABASE_ECHO", "maybe"),
    ] {
        let error = DatabaseConfig::from_variables(|n| match n {
            "DATABASE_URL" => Some("postgres://localhost/d".into()),
            n if n == name => Some(value.into()),
            _ => None,
        })
        .unwrap_err();
        assert!(error.to_string().starts_with(name), "{error}");
    }
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let base = || DatabaseConfig::builder().url("postgres://localhost/d");
    for (name, builder) in [
        ("pool_size", base().pool_size(0)),
        ("pool_size", base().pool_size(1001)),
        ("max_overflow", base().max_overflow(u32::MAX)),
        ("pool_timeout", base().pool_timeout(Duration::ZERO)),
        ("connect_timeout", base().connect_timeout(Duration::MAX)),
        ("statement_timeout", base().statement_timeout(Duration::MAX)),
    ] {
        let error = builder.build().unwrap_err();
        assert!(error.to_string().starts_with(name), "{error}");
    }
    assert_eq!(DatabaseConfig::builder().build().unwrap_err(), ConfigError::MissingVariable("url"));
}

#[test]
fn neither_debug_nor_the_drivers_options_debug_is_printed_with_a_password() {
    let config = url("postgres://u:s3cret@localhost/d");
    assert!(!format!("{config:?}").contains("s3cret"));
    assert!(!format!("{:?}", DatabaseConfig::builder().password("s3cret")).contains("s3cret"));
}

#[test]
fn nul_is_refused_in_everything_that_the_server_is_sent() {
    for part in [
        "a%00b:p@h/d",
        "u:p%00@h/d",
        "u:p@h/d%00",
        "h/?application_name=%00",
        "h/?options=-c%20a=%00",
        "h/?user=%00",
        "h/?dbname=%00",
        "h/?host=%00",
        "h/?password=%00",
    ] {
        let config = DatabaseConfig::from_url(&format!("postgres://{part}"));
        assert!(config.is_err(), "{part}");
    }
    let builder = || DatabaseConfig::builder().url("postgres://h/d");
    assert!(builder().application_name("a\0b").build().is_err());
    assert!(builder().password("a\0b").build().is_err());
}

mod hostile {
    use super::*;
    use proptest::prelude::*;

    fn quiet() -> ProptestConfig {
        ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
    }

    /// Everything that is shown of a configuration, or of why there is none.
    fn shown(result: &Result<DatabaseConfig, ConfigError>) -> String {
        let hosts = result.as_ref().ok().map(|config| config.hosts(&config.server));
        let target: Vec<_> = hosts.into_iter().flatten().map(|host| host.target).collect();
        let error = result.as_ref().err().map(ToString::to_string);
        format!("{result:?} {target:?} {error:?}")
    }

    proptest! {
        #![proptest_config(quiet())]

        #[test]
        fn no_text_makes_the_parser_panic(
            text in any::<String>(),
            rest in "[a-z:/@?#%&=\\[\\], .0-9\u{0}äé]{0,40}",
        ) {
            let _ = DatabaseConfig::from_url(&text);
            let _ = DatabaseConfig::from_url(&format!("postgres://{rest}"));
            let _ = DatabaseConfig::from_url(&format!("postgresql+x://u:p@h/d?{rest}"));
        }

        #[test]
        fn a_password_is_taken_as_it_is_or_the_url_refused(
            password in any::<String>().prop_map(|text| text.replace('%', "")),
            special in "[a-z:/@?#&=\\[\\]\\\\;+, '\"\t\n]{0,12}",
        ) {
            for password in [password, special] {
                let url = format!("postgres://u:{password}@h/d");
                if let Ok(config) = DatabaseConfig::from_url(&url) {
                    let taken = config.server.password.as_ref().map_or("", |p| p.expose_secret());
                    prop_assert_eq!(taken, password);
                    prop_assert_eq!((&*config.server.host, &*config.server.user, &*config.server.database), ("h", "u", "d"));
                }
            }
        }

        #[test]
        fn a_password_is_never_shown(
            before in any::<String>(),
            after in "[a-z:/@?#%&=\\[\\]\\\\;+, \t\n\u{0}ä]{0,12}",
            separator in "[:/@?#%&=;]{0,2}",
        ) {
            let password = format!("{before}{separator}canary{after}");
            for url in [
                format!("postgres://u:{password}@h/d"),
                format!("postgres://u:{password}@h/d?x=1"),
                format!("postgres://h/d?password={password}"),
                format!("postgres://u@h/d?user=u&password={password}&sslmode=disable"),
                format!("postgres://u:{password}@"),
            ] {
                let shown = shown(&DatabaseConfig::from_url(&url));
                prop_assert!(!shown.contains("canary"), "{url:?}: {shown}");
            }
            let built = DatabaseConfig::builder().url("postgres://h/d").password(&password);
            prop_assert!(!shown(&built.build()).contains("canary"));
        }
    }
}
