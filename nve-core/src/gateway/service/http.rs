//! HTTP/1.1 (RFC 9112) as far as metadata needs it: one request, one answer, and the connection ends.
//!
//! What must stay true: total over any bytes; a request's head is at most [`LONGEST_HEAD`] bytes, and nothing behind it is read.

use std::sync::Arc;

/// Bytes of a request line with its headers; longer ones get 431.
pub(super) const LONGEST_HEAD: usize = 4096;
/// Headers of a request; more get 431.
const MOST_HEADERS: usize = 48;

/// What a request asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// The target without query.
    pub(super) path: String,
    /// `X-aws-ec2-metadata-token`.
    pub(super) token: Option<String>,
    /// `X-aws-ec2-metadata-token-ttl-seconds`.
    pub(super) ttl: Option<String>,
    /// `X-Forwarded-For`: it came through a proxy.
    pub(super) forwarded: bool,
}

/// Methods that mean anything here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Method {
    Get,
    Head,
    Put,
    Other,
}

/// Reads a request; `None` while it is not whole.
///
/// # Errors
/// The answer to what is no request, or too long a one.
pub(super) fn read(bytes: &[u8]) -> Result<Option<Asked>, Reply> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes.get(..LONGEST_HEAD).unwrap_or(bytes)) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(Reply::status(431));
        }
        Err(_) => return Err(Reply::status(400)),
    }
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        Some(String::from_utf8_lossy(found.value).trim().to_owned())
    };
    let path = request.path.unwrap_or_default();
    Ok(Some(Asked {
        method: match request.method.unwrap_or_default() {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "PUT" => Method::Put,
            _ => Method::Other,
        },
        path: path.split_once('?').map_or(path, |(path, _)| path).to_owned(),
        token: header("x-aws-ec2-metadata-token"),
        ttl: header("x-aws-ec2-metadata-token-ttl-seconds"),
        forwarded: header("x-forwarded-for").is_some(),
    }))
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Reply {
    status: u16,
    /// Further headers, each with its end of line.
    headers: String,
    body: Arc<[u8]>,
    bodiless: bool,
}

impl Reply {
    /// 200 with this body.
    pub(super) fn ok(body: impl Into<Arc<[u8]>>) -> Self {
        Self { status: 200, headers: String::new(), body: body.into(), bodiless: false }
    }

    /// An answer whose body is its own meaning.
    pub(super) fn status(status: u16) -> Self {
        let text = format!("{status} {}\n", reason(status));
        Self { status, headers: String::new(), body: text.into_bytes().into(), bodiless: false }
    }

    /// With one more header.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers += &format!("{name}: {value}\r\n");
        self
    }

    /// The same as to HEAD: everything but the body (RFC 9110, 9.3.2).
    pub(super) fn without_body(mut self) -> Self {
        self.bodiless = true;
        self
    }

    /// What goes before the body, and the body.
    pub(super) fn parts(self) -> (Vec<u8>, Arc<[u8]>) {
        let Self { status, headers, body, bodiless } = self;
        let head = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n{headers}Connection: close\r\n\r\n",
            reason(status),
            body.len(),
        );
        (head.into_bytes(), if bodiless { Arc::default() } else { body })
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        _ => "Error",
    }
}
