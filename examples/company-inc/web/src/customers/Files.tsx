/** Import from and export to CSV files. */
import { Alert, Button, FileButton, List, Menu, Modal, Stack, Text } from '@mantine/core';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useRef } from 'react';
import { ApiError, importCustomers } from '../api';

export function Files({ onDone }: { onDone: (message: string) => void }) {
  const client = useQueryClient();
  const reset = useRef<() => void>(null);
  const load = useMutation({
    mutationFn: importCustomers,
    onSuccess: ({ created, skipped, rejected }) => {
      void client.invalidateQueries({ queryKey: ['customers'] });
      if (!rejected) onDone(`${created} imported, ${skipped} known already.`);
    },
    onSettled: () => reset.current?.(),
  });
  const rejected = load.data?.rejected ?? 0;
  return (
    <>
      <FileButton
        accept=".csv,text/csv"
        resetRef={reset}
        onChange={(file) => file && load.mutate(file)}
      >
        {(props) => (
          <Menu position="bottom-end">
            <Menu.Target>
              <Button variant="default" loading={load.isPending}>
                CSV
              </Button>
            </Menu.Target>
            <Menu.Dropdown>
              <Menu.Item onClick={props.onClick}>Import a file</Menu.Item>
              <Menu.Item component="a" href="/api/customers/export" download>
                Export all
              </Menu.Item>
            </Menu.Dropdown>
          </Menu>
        )}
      </FileButton>
      <Modal
        opened={load.isError || rejected > 0}
        onClose={load.reset}
        title="Import"
        closeButtonProps={{ 'aria-label': 'Close' }}
      >
        {load.error && (
          <Alert color="red" role="alert" title="Nothing was imported">
            {(load.error instanceof ApiError && load.error.errors.file) || load.error.message}
          </Alert>
        )}
        {load.data && rejected > 0 && (
          <Stack gap="xs">
            <Text>
              {load.data.created} imported, {load.data.skipped} known already, {rejected} left out:
            </Text>
            <List size="sm">
              {load.data.problems.map(({ line, errors }) => (
                <List.Item key={line}>
                  Line {line}: {Object.values(errors).join(' ')}
                </List.Item>
              ))}
            </List>
          </Stack>
        )}
      </Modal>
    </>
  );
}
