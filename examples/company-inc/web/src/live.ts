/**
 * The live view: the server tells over one stream that something has changed (api/live.py), and
 * the page reads again what it shows. During a deployment the stream ends and is opened again, to
 * the new release; the last counter seen tells whether anything was missed in between.
 */
import { useEffect, useRef, useState } from 'react';

export type Connection = 'connecting' | 'live' | 'waiting';

/** After a refusal (503) a browser does not come back by itself. */
const REOPEN_AFTER_MS = 5000;

/** Whether an event means that what is shown may be old. */
export function isNews(seen: number | null, changes: number): boolean {
  return seen !== changes;
}

/** Listen for changes for as long as the component lives; `onChange` need not be stable. */
export function useLive(onChange: () => void): Connection {
  const [connection, setConnection] = useState<Connection>('connecting');
  const changed = useRef(onChange);
  useEffect(() => {
    changed.current = onChange;
  });

  useEffect(() => {
    let source: EventSource | undefined;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let seen: number | null = null;

    function hear(event: MessageEvent<string>): void {
      const { changes } = JSON.parse(event.data) as { changes: number };
      setConnection('live');
      if (isNews(seen, changes)) changed.current();
      seen = changes;
    }

    function open(): void {
      const opened = new EventSource('/api/events');
      source = opened;
      opened.addEventListener('hello', hear);
      opened.addEventListener('change', hear);
      opened.onerror = () => {
        setConnection('waiting');
        if (opened.readyState === EventSource.CLOSED) timer = setTimeout(open, REOPEN_AFTER_MS);
      };
    }

    open();
    return () => {
      clearTimeout(timer);
      source?.close();
    };
  }, []);

  return connection;
}
