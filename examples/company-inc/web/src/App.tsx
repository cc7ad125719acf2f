/** The frame of the page: header, what is said in passing, footer. */
import {
  ActionIcon,
  Alert,
  Box,
  Container,
  Group,
  Notification,
  Portal,
  Text,
  useComputedColorScheme,
  useMantineColorScheme,
} from '@mantine/core';
import { useNetwork } from '@mantine/hooks';
import { useQueryClient } from '@tanstack/react-query';
import { useEffect, useState, useSyncExternalStore } from 'react';
import { answeredBy } from './api';
import { CustomersPage } from './customers/CustomersPage';
import { useLive, type Connection } from './live';
import { Visitor } from './Visitor';

const MESSAGE_MS = 5000;
const CONNECTIONS: Record<Connection, string> = {
  connecting: 'Connecting',
  live: 'Live',
  waiting: 'Connecting again',
};

export function App() {
  const client = useQueryClient();
  const { online } = useNetwork();
  const [message, setMessage] = useState('');
  const connection = useLive(() => {
    void client.invalidateQueries({ queryKey: ['customers'] });
  });
  useEffect(() => {
    if (!message) return;
    const timer = setTimeout(() => setMessage(''), MESSAGE_MS);
    return () => clearTimeout(timer);
  }, [message]);

  return (
    <Box mih="100dvh" style={{ display: 'flex', flexDirection: 'column' }}>
      <Header />
      <Container component="main" size="lg" w="100%" py="lg" style={{ flex: 1 }}>
        {!online && (
          <Alert color="yellow" role="alert" mb="md" title="You are offline">
            What you see may be old. Changes can be saved when you are back.
          </Alert>
        )}
        <CustomersPage connection={connection} say={setMessage} />
      </Container>
      <Footer connection={online ? connection : 'waiting'} />
      <Portal>
        <Box
          pos="fixed"
          bottom={16}
          right={16}
          left={16}
          maw={360}
          ml="auto"
          role="status"
          style={{ zIndex: 400 }}
        >
          {message && (
            <Notification
              color="teal"
              withBorder
              role="none"
              closeButtonProps={{ 'aria-label': 'Dismiss' }}
              onClose={() => setMessage('')}
            >
              {message}
            </Notification>
          )}
        </Box>
      </Portal>
    </Box>
  );
}

function Header() {
  const scheme = useComputedColorScheme('light');
  const { setColorScheme } = useMantineColorScheme();
  const other = scheme === 'dark' ? 'light' : 'dark';
  return (
    <Box
      component="header"
      style={{ borderBottom: '1px solid var(--mantine-color-default-border)' }}
    >
      <Container size="lg" py="sm">
        <Group justify="space-between" wrap="nowrap">
          <Group gap="xs" wrap="nowrap">
            <img src="/favicon.svg" alt="" width={24} height={24} />
            <Text fw={700}>Company Inc.</Text>
          </Group>
          <Group gap="xs" wrap="nowrap">
            <Visitor />
            <ActionIcon
              variant="subtle"
              aria-label={`Use ${other} colours`}
              onClick={() => setColorScheme(other)}
            >
              <span aria-hidden>{scheme === 'dark' ? '☀' : '☾'}</span>
            </ActionIcon>
          </Group>
        </Group>
      </Container>
    </Box>
  );
}

function Footer({ connection }: { connection: Connection }) {
  const release = useSyncExternalStore(answeredBy.subscribe, answeredBy.get);
  return (
    <Container component="footer" size="lg" w="100%" py="md">
      <Group justify="space-between" gap="xs">
        <Text size="xs" c="dimmed" role="status" aria-label="Connection">
          {CONNECTIONS[connection]}
        </Text>
        <Text size="xs" c="dimmed" data-testid="release">
          {release && `Answered by ${release}`}
        </Text>
      </Group>
    </Container>
  );
}
