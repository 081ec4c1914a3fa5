//! The Container Runtime Interface as a kubelet speaks it: gRPC calls of one question and one answer,
//! over a port of the guest. Fields are named by their numbers in `runtime/v1/api.proto`.

use bytes::Bytes;
use std::net::Ipv4Addr;
use std::time::Duration;

/// A pod may take so long to start.
const CALL: Duration = Duration::from_secs(300);

/// A message to be sent, in the encoding of Protocol Buffers.
#[derive(Clone, Debug, Default)]
pub struct Message(Vec<u8>);

impl Message {
    /// With a text.
    pub fn text(self, field: u32, text: &str) -> Message {
        self.bytes(field, text.as_bytes())
    }

    /// With several texts.
    pub fn texts(self, field: u32, texts: &[&str]) -> Message {
        texts.iter().fold(self, |message, text| message.text(field, text))
    }

    /// With a number.
    pub fn number(mut self, field: u32, number: u64) -> Message {
        self.varint(u64::from(field) << 3);
        self.varint(number);
        self
    }

    /// With a message in it.
    pub fn with(self, field: u32, inner: Message) -> Message {
        self.bytes(field, &inner.0)
    }

    fn bytes(mut self, field: u32, bytes: &[u8]) -> Message {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }
}

/// A message that was received.
#[derive(Clone, Debug, Default)]
pub struct Answer(Vec<(u32, Value)>);

#[derive(Clone, Debug)]
enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Answer {
    fn read(mut bytes: &[u8]) -> Option<Answer> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes)?;
            let value = match key & 7 {
                0 => Value::Number(varint(&mut bytes)?),
                2 => {
                    let len = usize::try_from(varint(&mut bytes)?).ok()?;
                    let (value, rest) = bytes.split_at_checked(len)?;
                    bytes = rest;
                    Value::Bytes(value.to_vec())
                }
                _ => return None,
            };
            fields.push((u32::try_from(key >> 3).ok()?, value));
        }
        Some(Answer(fields))
    }

    /// All messages in a field.
    pub fn all(&self, field: u32) -> Vec<Answer> {
        let read = |bytes: &[u8]| Answer::read(bytes).expect("a message");
        self.values(field).into_iter().map(read).collect()
    }

    /// The message in a field; an empty one where there is none.
    pub fn of(&self, field: u32) -> Answer {
        self.all(field).pop().unwrap_or_default()
    }

    /// All texts in a field.
    pub fn texts(&self, field: u32) -> Vec<String> {
        self.values(field).iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    /// The text in a field; an empty one where there is none.
    pub fn text(&self, field: u32) -> String {
        self.texts(field).pop().unwrap_or_default()
    }

    /// The number in a field; 0 where there is none.
    pub fn number(&self, field: u32) -> u64 {
        let found = self.0.iter().rev().find(|(number, _)| *number == field);
        found.map_or(0, |(_, value)| if let Value::Number(n) = value { *n } else { 0 })
    }

    fn values(&self, field: u32) -> Vec<&[u8]> {
        let values = self.0.iter().filter(|(number, _)| *number == field);
        values
            .filter_map(|(_, value)| match value {
                Value::Bytes(bytes) => Some(&bytes[..]),
                Value::Number(_) => None,
            })
            .collect()
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// A way to containerd's socket.
#[derive(Clone, Copy, Debug)]
pub struct Cri {
    /// Port of this machine.
    pub port: u16,
}

impl Cri {
    /// Asks the runtime service.
    pub fn runtime(self, method: &str, question: Message) -> Result<Answer, String> {
        self.call(&format!("/runtime.v1.RuntimeService/{method}"), question)
    }

    /// Asks the image service.
    pub fn images(self, method: &str, question: Message) -> Result<Answer, String> {
        self.call(&format!("/runtime.v1.ImageService/{method}"), question)
    }

    fn call(self, path: &str, question: Message) -> Result<Answer, String> {
        let reactor = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let reactor = reactor.expect("a reactor");
        let call = async { tokio::time::timeout(CALL, self.unary(path, question)).await };
        match reactor.block_on(call) {
            Ok(Ok(answer)) => answer.map_err(|why| format!("{path}: {why}")),
            Ok(Err(e)) => Err(format!("{path}: {e}")),
            Err(_) => Err(format!("{path}: no answer")),
        }
    }

    /// The inner error is the service's own.
    async fn unary(
        self,
        path: &str,
        question: Message,
    ) -> Result<Result<Answer, String>, h2::Error> {
        let stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await;
        let stream = match stream {
            Ok(stream) => stream,
            Err(e) => return Ok(Err(e.to_string())),
        };
        let (client, connection) = h2::client::handshake(stream).await?;
        let connection = tokio::spawn(connection);
        let mut client = client.ready().await?;
        let request = http::Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("a request");
        let (response, mut body) = client.send_request(request, false)?;
        // Not compressed, and its length.
        let len = u32::try_from(question.0.len()).expect("a short message");
        let framed = [&[0][..], &len.to_be_bytes(), &question.0].concat();
        body.send_data(Bytes::from(framed), true)?;
        let (head, mut body) = response.await?.into_parts();
        let mut content = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece?;
            body.flow_control().release_capacity(piece.len())?;
            content.extend_from_slice(&piece);
        }
        let trailers = body.trailers().await?.unwrap_or(head.headers);
        connection.abort();
        let said = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
        if said("grpc-status") != Some("0") {
            return Ok(Err(said("grpc-message").unwrap_or("no status").to_owned()));
        }
        Ok(content.get(5..).and_then(Answer::read).ok_or_else(|| "no message".to_owned()))
    }
}
