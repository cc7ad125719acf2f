import { act, renderHook } from '@testing-library/react';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { isNews, useLive } from './live';

class FakeEventSource extends EventTarget {
  static CLOSED = 2;
  static opened: FakeEventSource[] = [];
  readyState = 1;
  onerror: (() => void) | null = null;
  constructor() {
    super();
    FakeEventSource.opened.push(this);
  }
  say(name: string, changes: number): void {
    this.dispatchEvent(new MessageEvent(name, { data: JSON.stringify({ changes }) }));
  }
  close(): void {
    this.readyState = FakeEventSource.CLOSED;
  }
}

beforeEach(() => {
  vi.useFakeTimers();
  FakeEventSource.opened = [];
  vi.stubGlobal('EventSource', FakeEventSource);
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const last = () => FakeEventSource.opened.at(-1)!;

test('only an unseen counter is news', () => {
  expect(isNews(null, 4)).toBe(true);
  expect(isNews(4, 4)).toBe(false);
  expect(isNews(4, 5)).toBe(true);
});

test('a change is told, and a reconnection without one is not', () => {
  const changed = vi.fn();
  const { result } = renderHook(() => useLive(changed));
  expect(result.current).toBe('connecting');
  act(() => last().say('hello', 1));
  expect(result.current).toBe('live');
  act(() => last().say('change', 2));
  expect(changed).toHaveBeenCalledTimes(2);
  act(() => last().onerror?.());
  expect(result.current).toBe('waiting');
  act(() => last().say('hello', 2));
  expect(result.current).toBe('live');
  expect(changed).toHaveBeenCalledTimes(2);
});

test('after a refusal the stream is opened again, and closed at the end', () => {
  const { unmount } = renderHook(() => useLive(() => undefined));
  last().close();
  act(() => last().onerror?.());
  act(() => vi.advanceTimersByTime(6000));
  expect(FakeEventSource.opened).toHaveLength(2);
  unmount();
  expect(last().readyState).toBe(FakeEventSource.CLOSED);
});
