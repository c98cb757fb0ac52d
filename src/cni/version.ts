// The versions of the CNI specification, and what each of them knows.

export const VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] as const;
export type Version = (typeof VERSIONS)[number];

export const NEWEST: Version = "1.1.0";
/** Of a configuration that names none. */
export const OLDEST: Version = "0.1.0";

export const isVersion = (text: string): text is Version => (VERSIONS as readonly string[]).includes(text);

export function isAtLeast(version: Version, other: Version): boolean {
	return VERSIONS.indexOf(version) >= VERSIONS.indexOf(other);
}
