//! Real servers, started and ended in all the ways that they can be.

use std::{
    collections::BTreeSet,
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use private_postgres::{Server, StopMode, database_url};

/// What the server says to a client that wants to connect.
struct Answer {
    /// 0: you are in; 10: a password, by SASL.
    authentication: u32,
    ready: bool,
}

fn connect(port: u16, patience: Duration) -> io::Result<Answer> {
    open(port, patience).map(|(_, answer)| answer)
}

fn open(port: u16, patience: Duration) -> io::Result<(TcpStream, Answer)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(patience))?;
    let body = b"user\0postgres\0database\0postgres\0\0";
    let mut packet = Vec::from((body.len() as u32 + 8).to_be_bytes());
    packet.extend(0x0003_0000_u32.to_be_bytes());
    packet.extend(body);
    stream.write_all(&packet)?;

    let mut authentication = None;
    loop {
        let (kind, body) = message(&mut stream)?;
        match kind {
            b'R' => {
                let code = u32::from_be_bytes(body[..4].try_into().unwrap());
                authentication = Some(code);
                if code != 0 {
                    let (authentication, ready) = (code, false);
                    return Ok((stream, Answer { authentication, ready }));
                }
            }
            b'Z' => {
                let authentication = authentication.expect("an answer to the start packet first");
                return Ok((stream, Answer { authentication, ready: true }));
            }
            _ => {}
        }
    }
}

/// The server's next message, if it is no error.
fn message(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body)?;
    match head[0] {
        b'E' => Err(io::Error::other(String::from_utf8_lossy(&body).into_owned())),
        kind => Ok((kind, body)),
    }
}

/// The one value of each row that a statement returns.
fn ask(port: u16, statement: &str) -> io::Result<Vec<String>> {
    let (mut stream, _) = open(port, Duration::from_secs(20))?;
    let mut packet = vec![b'Q'];
    packet.extend((statement.len() as u32 + 5).to_be_bytes());
    packet.extend(statement.as_bytes());
    packet.push(0);
    stream.write_all(&packet)?;
    let mut values = Vec::new();
    loop {
        match message(&mut stream)? {
            // How many columns, and how long the first is.
            (b'D', row) => values.push(String::from_utf8_lossy(&row[6..]).into_owned()),
            (b'Z', _) => return Ok(values),
            _ => {}
        }
    }
}

#[track_caller]
fn assert_answers(port: u16) {
    let answer = connect(port, Duration::from_secs(20)).unwrap();
    assert!(answer.ready && answer.authentication == 0);
}

#[track_caller]
fn assert_soon(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "not within 30 s: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn refuses(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port))
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn port_of(url: &str) -> u16 {
    let url = url.trim();
    let rest = url.strip_prefix("postgres://postgres@127.0.0.1:");
    let port = rest.and_then(|rest| rest.strip_suffix("/postgres")?.parse().ok());
    port.unwrap_or_else(|| panic!("not the URL of a private server: {url}"))
}

/// The folders in which servers of a process live, by the process id in their names.
fn folders_of(pid: u32) -> Vec<PathBuf> {
    let start = format!("private-postgres.{pid}-");
    [PathBuf::from("/dev/shm"), env::temp_dir(), "/tmp".into()]
        .iter()
        .flat_map(|parent| parent.read_dir().into_iter().flatten().flatten())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&start))
        .map(|entry| entry.path())
        .collect()
}

fn with_postgres(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_with-postgres"));
    command.args(arguments).env_remove("DATABASE_URL");
    command
}

fn first_line_with(child: &mut Child, text: &str) -> String {
    BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .find(|line| line.contains(text))
        .expect("a line with the URL")
}

#[test]
fn starts_answers_and_ends_when_dropped() {
    let server = Server::start().unwrap();
    let (port, data) = (server.port(), server.data_dir().to_owned());
    assert_eq!(server.url("postgres"), format!("postgres://postgres@127.0.0.1:{port}/postgres"));
    assert_answers(port);
    assert!(data.join("PG_VERSION").exists());
    assert!(server.postmaster_pid().is_some());

    drop(server);
    assert!(refuses(port));
    assert!(!data.parent().unwrap().exists());
}

#[test]
fn a_password_is_asked_for_and_settings_are_heeded() {
    let server =
        Server::builder().password("p@ss word").setting("max_connections", "7").start().unwrap();
    assert!(server.url("x").starts_with("postgres://postgres:p%40ss%20word@127.0.0.1:"));
    assert!(!format!("{server:?}").contains("ss"));
    let answer = connect(server.port(), Duration::from_secs(20)).unwrap();
    assert_eq!(answer.authentication, 10);
    let folder = server.data_dir().parent().unwrap();
    assert!(!folder.join("password").exists());

    let options = std::fs::read_to_string(server.data_dir().join("postgresql.conf")).unwrap();
    assert!(options.contains("max_connections = '7'"));
}

#[test]
fn a_failed_start_tells_the_servers_last_words_and_leaves_nothing() {
    let error = Server::builder().setting("no_such_setting", "1").start().unwrap_err();
    assert!(error.to_string().contains("no_such_setting"), "{error}");

    let taken = Server::start().unwrap();
    let error = Server::builder().port(taken.port()).start().unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
}

#[test]
fn restart_keeps_port_and_data() {
    let server = Server::start().unwrap();
    let (port, pid) = (server.port(), server.postmaster_pid());
    server.restart().unwrap();
    assert_eq!(server.port(), port);
    assert_ne!(server.postmaster_pid(), pid);
    assert_answers(port);

    for mode in [StopMode::Smart, StopMode::Fast, StopMode::Immediate] {
        server.stop(mode).unwrap();
        assert!(refuses(port));
        assert_eq!(server.postmaster_pid(), None);
        server.restart().unwrap();
        assert_answers(port);
    }
}

#[test]
fn restart_recovers_a_server_that_was_killed() {
    let server = Server::start().unwrap();
    for _ in 0..3 {
        let kill = format!("kill -KILL {}", server.postmaster_pid().unwrap());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        assert_soon("it is seen to be dead", || server.postmaster_pid().is_none());
        server.restart().unwrap();
        assert_answers(server.port());
    }
}

#[test]
fn a_standby_follows_and_takes_no_library_from_elsewhere_that_lies_beside_its_programs() {
    let primary = Server::start().unwrap();
    if !primary.can_be_copied() {
        eprintln!("SKIPPED: there is no pg_basebackup to make a standby with");
        return;
    }
    let standby = Server::builder().standby_of(&primary).start().unwrap();
    let receivers = "select pid from pg_stat_wal_receiver where status = 'streaming'";
    assert_soon("the standby follows", || ask(standby.port(), receivers).unwrap().len() == 1);

    // Where the system tells what a process has loaded.
    let receiver = &ask(standby.port(), receivers).unwrap()[0];
    let process = PathBuf::from("/proc").join(receiver);
    if !process.join("maps").exists() {
        return;
    }
    let program = process.join("exe").canonicalize().unwrap();
    let beside = program.parent().unwrap().with_file_name("lib");
    let maps = std::fs::read_to_string(process.join("maps")).unwrap();
    let loaded: BTreeSet<_> =
        maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..]))).collect();
    assert!(loaded.iter().any(|file| file.to_string_lossy().contains("libpq.")), "{loaded:?}");
    for file in loaded {
        let own = beside.join(file.file_name().unwrap());
        assert!(!own.exists() || own == file, "{} and not {}", file.display(), own.display());
    }
}

#[test]
fn a_frozen_server_is_silent_until_thawed() {
    let server = Server::start().unwrap();
    let port = server.port();
    server.freeze().unwrap();
    let error = connect(port, Duration::from_millis(300)).err().unwrap();
    assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
    server.thaw().unwrap();
    assert_answers(port);

    server.freeze().unwrap();
    server.restart().unwrap();
    assert_answers(port);

    server.freeze().unwrap();
    drop(server);
    assert!(refuses(port));
}

#[test]
fn ends_when_its_owner_is_killed() {
    let script = r#"echo "$DATABASE_URL"; read -r line"#;
    let mut owner = with_postgres(&["sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let port = port_of(&first_line_with(&mut owner, "postgres://"));
    assert_answers(port);
    assert_eq!(folders_of(owner.id()).len(), 1);

    owner.kill().unwrap();
    assert_soon("the server ends", || refuses(port));
    assert_soon("its folder is removed", || folders_of(owner.id()).is_empty());
    // Last, for it ends the script, which the killed owner no longer can.
    owner.wait().unwrap();
}

#[test]
fn ends_when_its_owner_is_killed_while_it_starts() {
    let mut owner = with_postgres(&["true"]).spawn().unwrap();
    assert_soon("a folder is made", || !folders_of(owner.id()).is_empty());
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert_soon("it is removed", || folders_of(owner.id()).is_empty());
}

const PANIC: &str = "PRIVATE_POSTGRES_TEST_PANIC";

/// Not a test by itself: the process that the next one starts.
#[test]
fn owner_that_panics() {
    if env::var_os(PANIC).is_some() {
        let urls = [(); 3].map(|()| thread::spawn(|| database_url().unwrap()));
        let [first, second, third] = urls.map(|url| url.join().unwrap());
        assert!(first == second && second == third, "one server for the process");
        assert_answers(port_of(&first));
        println!("\nURL={first}");
        panic!("on purpose");
    }
}

#[test]
fn ends_when_its_owner_panics() {
    let mut owner = Command::new(env::current_exe().unwrap())
        .args(["owner_that_panics", "--exact", "--nocapture"])
        .env(PANIC, "1")
        .env_remove("DATABASE_URL")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let line = first_line_with(&mut owner, "URL=");
    let port = port_of(line.strip_prefix("URL=").unwrap());
    assert!(!owner.wait().unwrap().success());
    assert_soon("the server ends", || refuses(port));
    assert_soon("its folder is removed", || folders_of(owner.id()).is_empty());
}

#[test]
fn with_postgres_exits_as_the_command_does() {
    let code = |command: &mut Command| command.status().unwrap().code();
    let url = r#"case $DATABASE_URL in postgres://postgres@127.0.0.1:*) exit 3; esac"#;
    assert_eq!(code(&mut with_postgres(&["sh", "-c", url])), Some(3));

    // With a URL given no server is started, which would fail here.
    let given = |arguments: &[&str]| {
        let mut command = with_postgres(arguments);
        command.env("DATABASE_URL", "given").env("PG_BIN_DIR", "/nonexistent");
        code(command.stderr(Stdio::null()))
    };
    assert_eq!(given(&["sh", "-c", r#"[ "$DATABASE_URL" = given ]"#]), Some(0));
    assert_eq!(given(&["sh", "-c", "kill -TERM $$"]), Some(128 + 15));
    assert_eq!(given(&["/nonexistent"]), Some(127));
    assert_eq!(given(&[]), Some(2));
}
