// Where talk.js answers.
export const [STREAM, ECHO, DATAGRAM] = [7101, 7102, 7103] as const;
export const TALK_PORTS = { tcp: [STREAM, ECHO], udp: [DATAGRAM] } as const;
